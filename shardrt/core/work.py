"""Work items and steps: how the engine and whoever runs the user's code talk.

The engine hands out a `WorkItem` when an instance has news, and takes back one `Step`. It
does not matter whether the code ran in the same turn of the loop or on another machine
minutes later: a step names the execution and the turn it answers, and one that does not fit
any more is discarded as a whole, outputs included.
"""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec
from msgspec import Raw

from shardrt.core.history import (
    NULL,
    Action,
    Arrival,
    CancelRequested,
    EventRaised,
    ExecutionStarted,
    Failure,
)


class WorkItem(msgspec.Struct, frozen=True, gc=False):
    """News for one execution.

    The turn to run is: time moves to `at`, then all of `arrivals` happen at once, in order.
    Before the very first turn (`turn == 0`) the body is started with `started.input`.
    An executor that does not hold the execution resident rebuilds it first from history
    (`turn` tells how many turns it must contain).
    """

    instance_id: str
    execution_id: str
    turn: int
    at: int
    started: ExecutionStarted
    arrivals: tuple[Arrival, ...]
    seed: str = ""
    """The execution id to show to the code; empty: `execution_id`."""


class Completed(msgspec.Struct, frozen=True, array_like=True, tag="Completed", gc=False):
    """The body returned."""

    result: Raw = NULL


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="Failed", gc=False):
    """The body raised."""

    failure: Failure


class Continued(msgspec.Struct, frozen=True, array_like=True, tag="Continued", gc=False):
    """The body asked to start over; `carried` are events it had not consumed, oldest first.

    A request to cancel that it has not seen is always among them.
    """

    input: Raw
    carried: tuple[EventRaised | CancelRequested, ...] = ()
    version: str | None = None
    """Of the orchestrator from now on; None: the same."""


class Canceled(msgspec.Struct, frozen=True, array_like=True, tag="Canceled", gc=False):
    """A cancellation that was asked for from outside has left the body."""

    reason: str = ""


@final
class Parked(msgspec.Struct, frozen=True, array_like=True, tag="Parked", gc=False):
    """The code could not be run, or does not fit its history: nothing of this turn counts.

    The instance keeps its inbox and waits; `reason` is what users see.
    """

    reason: str


Outcome: TypeAlias = Completed | Failed | Continued | Canceled | Parked


class Step(msgspec.Struct, frozen=True, gc=False):
    """What one turn of the code led to."""

    instance_id: str
    execution_id: str
    turn: int
    actions: tuple[Action, ...] = ()
    outcome: Outcome | None = None
    custom_status: Raw | None = None
    """The new custom status; None if the turn did not set it (`null` clears it)."""
