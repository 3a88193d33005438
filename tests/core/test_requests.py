"""What clients ask, what they are answered, and that asking again changes nothing."""

from __future__ import annotations

import pytest
from msgspec import Raw

from shardrt.core import entries as e, history as h, requests as r
from shardrt.core.answering import INBOX_EVENTS_MAX
from shardrt.core.ids import derived_id
from shardrt.core.timers import DUE_MAX
from shardrt.core.work import Completed, Continued
from tests.core.acts import ONE, SECOND, TWO, activity, ask, data_of, origin, start, step_of, turn
from tests.core.world import START, World

FIRST = derived_id("ann", 1, "a")


def ended() -> World:
    """Return a world in which instance ``a`` has ended."""
    world = World()
    start(world)
    turn(world, outcome=Completed(TWO))
    return world


def execution_of(world: World, seq: int) -> str:
    found = ask(world, r.Get(), seq)
    assert isinstance(found, r.Snapshot)
    return found.execution_id


def entries(world: World) -> list[e.Entry]:
    """Return what is durable, without the takeover."""
    return world.nodes[0].entries()[1:]


# -- start -------------------------------------------------------------------------------------


def test_a_start_creates_an_instance_and_says_so():
    world = World()
    answer = start(world, version="2", tags={"k": "v"})
    assert answer == r.Started("a", FIRST)
    assert entries(world) == [
        e.Created(START, "a", FIRST, "code", ONE, "2", {"k": "v"}, None, origin(1))
    ]
    assert ask(world, r.Get(), 2) == r.Snapshot(
        "a",
        FIRST,
        "code",
        h.Status.PENDING,
        START,
        START,
        0,
        version="2",
        input=ONE,
        tags={"k": "v"},
    )


def test_a_repeated_start_is_answered_alike_and_changes_nothing():
    world = World()
    assert start(world) == start(world) == r.Started("a", FIRST)
    assert len(entries(world)) == 1


def test_a_start_repeated_after_continue_as_new_is_answered_alike():
    world = World()
    start(world)
    turn(world, outcome=Continued(TWO))
    assert start(world) == r.Started("a", FIRST)


def test_a_second_start_of_an_id_is_refused():
    world = World()
    start(world)
    assert start(world, seq=2) == r.Refusal(
        "InstanceExists", "instance 'a' exists already and is open"
    )
    turn(world, outcome=Completed())
    assert start(world, seq=3) == r.Refusal(
        "InstanceExists", "instance 'a' exists already and has ended"
    )


def test_a_start_may_be_content_with_the_one_that_is_there():
    world = World()
    start(world)
    assert start(world, seq=2, on_conflict="return") == r.Started("a", FIRST, created=False)
    assert len(entries(world)) == 1


def test_a_start_may_replace_one_that_has_ended_but_no_other():
    world = World()
    start(world)
    refusal = start(world, seq=2, on_conflict="restart")
    assert refusal == r.Refusal("InstanceExists", "instance 'a' exists already and is open")
    turn(world, outcome=Completed())
    assert start(world, seq=3, on_conflict="restart") == r.Started("a", derived_id("ann", 3, "a"))
    assert world.instance("a").status is h.Status.PENDING


def test_a_start_repeated_after_its_instance_was_replaced_does_not_replace_that():
    world = World()
    first = start(world, on_conflict="restart")
    turn(world, outcome=Completed())
    start(world, seq=2, on_conflict="restart")
    turn(world, outcome=Completed())
    assert start(world, on_conflict="restart") == first
    assert world.instance("a").execution_id == derived_id("ann", 2, "a")


def test_a_start_repeated_after_the_purge_does_not_bring_the_instance_back():
    world = ended()
    ask(world, r.Purge(), 2)
    assert start(world) == r.Started("a", FIRST)
    assert world.nodes[0].instances() == {}


def test_a_delayed_start_runs_when_its_time_has_come():
    world = World()
    node = world.nodes[0]
    start(world, start_at=START + SECOND)
    assert world.next_work(node) is None
    world.now += SECOND - 1
    world.fire(node)
    assert world.next_work(node) is None
    world.now += 1
    world.fire(node)
    assert turn(world).arrivals == ()


def test_a_start_in_the_past_runs_at_once():
    world = World()
    start(world, start_at=START - SECOND)
    assert turn(world).turn == 0


def test_a_start_after_all_calendars_is_refused():
    world = World()
    refusal = r.Refusal("InputInvalid", f"start_at is too late: {DUE_MAX + 1}")
    assert start(world, start_at=DUE_MAX + 1) == refusal
    assert start(world, start_at=DUE_MAX) == r.Started("a", FIRST)


# -- events ------------------------------------------------------------------------------------


def test_an_event_is_delivered_with_the_time_of_its_arrival():
    world = World()
    start(world)
    assert ask(world, r.Raise("go", TWO), 2) == r.Done()
    assert turn(world).arrivals == (h.EventRaised(START, "go", TWO),)


def test_events_are_delivered_in_order():
    world = World()
    start(world)
    for seq in (2, 3, 4):
        ask(world, r.Raise("go", Raw(b"%d" % seq)), seq)
    assert data_of(turn(world).arrivals) == [b"2", b"3", b"4"]


def test_a_repeated_event_is_delivered_once():
    world = World()
    start(world)
    assert ask(world, r.Raise("go"), 2) == ask(world, r.Raise("go"), 2) == r.Done()
    assert len(turn(world).arrivals) == 1


def test_an_event_for_nobody_is_refused():
    refusal = r.Refusal("InstanceNotFound", "there is no instance 'a'")
    assert ask(World(), r.Raise("go"), 1) == refusal


def test_an_event_for_an_ended_instance_is_refused():
    assert ask(ended(), r.Raise("go"), 2) == r.Refusal(
        "InstanceFinished", "instance 'a' has ended: Completed"
    )


def test_an_event_repeated_after_the_end_is_still_done():
    world = World()
    start(world)
    ask(world, r.Raise("go"), 2)
    turn(world, outcome=Completed())
    assert ask(world, r.Raise("go"), 2) == r.Done()


def test_too_many_undelivered_events_are_refused():
    world = World()
    start(world)
    event = h.EventRaised(START, "go", ONE)
    world.instance("a").inbox = [event] * INBOX_EVENTS_MAX
    assert ask(world, r.Raise("go"), 2) == r.Refusal(
        "Overloaded", "instance 'a' has 100000 undelivered events", 1.0
    )


def test_requests_below_what_the_client_has_settled_count_as_applied():
    world = World()
    start(world)
    world.request("a", r.Raise("go", ONE), origin(9, low=7))
    assert ask(world, r.Raise("go", TWO), 6) == r.Done()
    assert data_of(turn(world).arrivals) == [b"1"]
    assert world.nodes[0].core.state.sessions["ann"].applied == {9}


def test_what_was_applied_is_forgotten_when_the_client_has_settled_it():
    world = World()
    for seq in range(1, 50):
        start(world, instance_id=f"i{seq}", seq=2 * seq)
    for seq in range(1, 50):
        turn(world, instance_id=f"i{seq}", outcome=Completed())
        last = origin(200 + seq, low=2 * seq)
        world.request(f"i{seq}", r.Purge(), last)
    session = world.nodes[0].core.state.sessions["ann"]
    assert session.low == 98
    assert min(session.applied) == 98


def test_sessions_not_heard_of_for_long_are_dropped():
    world = World()
    start(world)
    ask(world, r.Raise("go"), 2)
    core = world.nodes[0].core
    core.forget_sessions(START)
    assert set(core.state.sessions) == {"ann"}
    core.forget_sessions(START + 1)
    assert core.state.sessions == {}
    world.commit_all()
    assert entries(world)[-1] == e.Forgot(("ann",))


# -- the life of an instance, from outside -----------------------------------------------------


def test_a_terminated_instance_has_ended_with_its_reason():
    world = World()
    start(world)
    turn(world, activity(0), h.TimerCreated(1, START + SECOND))
    assert ask(world, r.Terminate("enough"), 2) == r.Done()
    instance = world.instance("a")
    assert (instance.status, instance.reason) == (h.Status.TERMINATED, "enough")
    assert instance.tail[-1] == h.ExecutionTerminated(START, "enough")
    assert [each.task_id for each in world.canceled] == [0]
    assert world.nodes[0].core.abandoned == ["a"]


def test_a_repeated_termination_is_done():
    world = World()
    start(world)
    assert ask(world, r.Terminate(), 2) == ask(world, r.Terminate(), 2) == r.Done()
    finished = r.Refusal("InstanceFinished", "instance 'a' has ended: Terminated")
    assert ask(world, r.Terminate(), 3) == finished


def test_a_suspended_instance_gathers_what_arrives_and_runs_when_resumed():
    world = World()
    start(world)
    ask(world, r.Suspend("lunch"), 2)
    ask(world, r.Raise("go"), 3)
    instance = world.instance("a")
    assert (instance.status, instance.reason) == (h.Status.SUSPENDED, "lunch")
    assert world.next_work(world.nodes[0]) is None
    ask(world, r.Resume(), 4)
    assert (instance.status, instance.reason) == (h.Status.PENDING, "")
    assert turn(world).arrivals == (h.EventRaised(START, "go", h.NULL),)
    assert instance.tail == [
        h.ExecutionStarted(START, "code", ONE),
        h.ExecutionSuspended(START, "lunch"),
        h.ExecutionResumed(START),
        h.OrchestratorStarted(START),
        h.EventRaised(START, "go", h.NULL),
    ]


def test_an_instance_resumed_after_its_first_turn_is_running():
    world = World()
    start(world)
    turn(world)
    ask(world, r.Suspend(), 2)
    ask(world, r.Resume(), 3)
    assert world.instance("a").status is h.Status.RUNNING


def test_suspending_twice_or_resuming_what_runs_changes_nothing():
    world = World()
    start(world)
    assert ask(world, r.Resume(), 2) == r.Done()
    ask(world, r.Suspend(), 3)
    assert ask(world, r.Suspend(), 4) == r.Done()
    assert [type(entry) for entry in entries(world)] == [e.Created, e.Suspended]


def test_a_suspended_instance_can_be_terminated():
    world = World()
    start(world)
    ask(world, r.Suspend(), 2)
    ask(world, r.Terminate(), 3)
    assert world.instance("a").status is h.Status.TERMINATED
    assert world.instance("a").suspended is False


def test_a_restart_runs_it_again_with_name_and_input():
    world = World()
    start(world, version="2", tags={"k": "v"})
    turn(world, outcome=Completed())
    execution_id = derived_id("ann", 2, "a")
    assert ask(world, r.Restart(), 2) == r.Started("a", execution_id)
    assert entries(world)[-1] == e.Created(
        START, "a", execution_id, "code", ONE, "2", {"k": "v"}, None, origin(2)
    )


@pytest.mark.parametrize("after", [r.Get(), r.Purge(), r.Restart()])
def test_a_repeated_restart_is_answered_alike_whatever_came_after(after: r.Request):
    world = ended()
    first = ask(world, r.Restart(), 2)
    turn(world, outcome=Completed())
    ask(world, after, 3)
    before = len(entries(world))
    assert ask(world, r.Restart(), 2) == first
    assert len(entries(world)) == before


def test_only_what_has_ended_can_be_restarted_or_purged():
    world = World()
    start(world)
    refusal = r.Refusal("InstanceNotFinished", "instance 'a' has not ended: Pending")
    assert [ask(world, each, 2) for each in (r.Restart(), r.Purge())] == [refusal] * 2


def test_a_purge_says_how_many_are_gone_also_when_repeated():
    world = ended()
    assert ask(world, r.Purge(), 2) == ask(world, r.Purge(), 2) == r.Purged(1)
    assert ask(world, r.Purge(), 3) == r.Purged(0)
    assert entries(world)[-1] == e.Deleted(START, "a", origin(2))


def test_a_purge_of_what_was_listed_spares_what_it_has_become():
    world = ended()
    listed = execution_of(world, 2)
    ask(world, r.Restart(), 3)
    ask(world, r.Terminate(), 4)
    assert ask(world, r.Purge(execution_id=listed), 5) == r.Purged(0)
    now = execution_of(world, 6)
    assert now != listed
    assert ask(world, r.Purge(execution_id=now), 7) == r.Purged(1)


# -- reading -----------------------------------------------------------------------------------


def test_there_is_nothing_to_get_of_nobody():
    world = World()
    assert ask(world, r.Get(), 1) is None
    refusal = r.Refusal("InstanceNotFound", "there is no instance 'a'")
    assert ask(world, r.Wait(), 2) == refusal


def test_who_waits_is_told_the_end_once_it_is_durable():
    world = World()
    start(world)
    world.request("a", r.Wait(), origin(2), to="me")
    item = world.next_work(world.nodes[0])
    assert item is not None
    world.step(step_of(item, outcome=Completed(TWO)))
    assert "me" not in world.answers
    world.commit_all()
    (snapshot,) = world.answers["me"]
    assert snapshot == ask(world, r.Get(), 3) == ask(world, r.Wait(), 4)
    assert isinstance(snapshot, r.Snapshot)
    assert (snapshot.status, snapshot.output) == (h.Status.COMPLETED, TWO)
