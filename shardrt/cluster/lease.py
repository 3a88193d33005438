"""The states of this host's lease.

Only in `HELD` and `DOUBTFUL` may partitions serve: the last renewal is recent enough that no
other host can have been given them. Whether a write counts is not decided here but by epochs.
"""

from __future__ import annotations

from enum import StrEnum


class LeaseState(StrEnum):
    """Where this host stands."""

    JOINING = "joining"
    """No row in the store yet, under this incarnation."""
    HELD = "held"
    DOUBTFUL = "doubtful"
    """The last renewal failed; the one before still holds."""
    EXPIRED = "expired"
    """Our own deadline has passed: nothing serves, memory is kept."""
    LEAVING = "leaving"
    """Draining, in order to leave."""
    LEFT = "left"


class LeaseSignal(StrEnum):
    """What can happen to it."""

    RENEWED = "renewed"
    RENEWAL_FAILED = "renewal failed"
    DEADLINE_PASSED = "deadline passed"
    FENCED = "fenced"
    LEAVE = "leave"
    GONE = "gone"


_S, _E = LeaseState, LeaseSignal

TRANSITIONS: dict[LeaseState, dict[LeaseSignal, LeaseState]] = {
    _S.JOINING: {
        _E.RENEWED: _S.HELD,
        _E.RENEWAL_FAILED: _S.JOINING,
        _E.DEADLINE_PASSED: _S.JOINING,
        _E.FENCED: _S.JOINING,  # the row of a previous incarnation has not expired yet
        _E.LEAVE: _S.LEAVING,
    },
    _S.HELD: {
        _E.RENEWED: _S.HELD,
        _E.RENEWAL_FAILED: _S.DOUBTFUL,
        _E.DEADLINE_PASSED: _S.EXPIRED,
        _E.FENCED: _S.JOINING,
        _E.LEAVE: _S.LEAVING,
    },
    _S.DOUBTFUL: {
        _E.RENEWED: _S.HELD,
        _E.RENEWAL_FAILED: _S.DOUBTFUL,
        _E.DEADLINE_PASSED: _S.EXPIRED,
        _E.FENCED: _S.JOINING,
        _E.LEAVE: _S.LEAVING,
    },
    _S.EXPIRED: {
        _E.RENEWED: _S.HELD,  # epochs tell what is still ours
        _E.RENEWAL_FAILED: _S.EXPIRED,
        _E.DEADLINE_PASSED: _S.EXPIRED,
        _E.FENCED: _S.JOINING,
        _E.LEAVE: _S.LEAVING,
    },
    _S.LEAVING: {
        _E.RENEWED: _S.LEAVING,
        _E.RENEWAL_FAILED: _S.LEAVING,
        _E.DEADLINE_PASSED: _S.LEAVING,
        _E.FENCED: _S.LEFT,  # nothing left to hand over
        _E.LEAVE: _S.LEAVING,
        _E.GONE: _S.LEFT,
    },
    _S.LEFT: dict.fromkeys(LeaseSignal, _S.LEFT),
}
