"""The lease's states."""

from shardrt.cluster.lease import TRANSITIONS, LeaseSignal, LeaseState


def test_every_state_is_listed() -> None:
    assert set(TRANSITIONS) == set(LeaseState)


def test_every_state_answers_every_signal_except_that_only_leavers_can_be_gone() -> None:
    for state, row in TRANSITIONS.items():
        missing = set(LeaseSignal) - set(row)
        leavers = {LeaseState.LEAVING, LeaseState.LEFT}
        assert missing == (set() if state in leavers else {LeaseSignal.GONE}), state


def test_only_a_renewal_leads_to_a_held_lease() -> None:
    ways = {s for row in TRANSITIONS.values() for s, to in row.items() if to is LeaseState.HELD}
    assert ways == {LeaseSignal.RENEWED}


def test_who_has_left_stays_away() -> None:
    assert set(TRANSITIONS[LeaseState.LEFT].values()) == {LeaseState.LEFT}
