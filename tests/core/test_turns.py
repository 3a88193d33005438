"""Turns of the code: handed out once, taken back whole or not at all."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from shardrt.core import history as h, requests as r
from shardrt.core.ids import derived_id
from shardrt.core.partition import BEGIN_EVERY
from shardrt.core.state import Instance
from shardrt.core.work import Completed, Continued, Failed, Parked, WorkItem
from tests.core.acts import (
    BROKEN,
    ONE,
    SECOND,
    THREE,
    TWO,
    activity,
    arrivals,
    ask,
    child,
    data_of,
    run_of,
    start,
    step_of,
    take,
    turn,
)
from tests.core.world import START, World

BARE: Any = {
    "instance_id": "a",
    "execution_id": "x",
    "name": "code",
    "created_at": START,
    "updated_at": START,
}
FIRST = derived_id("ann", 1, "a")


def started(partitions: int = 1) -> World:
    world = World(partitions)
    start(world)
    return world


def test_the_first_turn_starts_the_body():
    world = started()
    assert take(world) == WorkItem("a", FIRST, 0, START, h.ExecutionStarted(START, "code", ONE), ())


def test_a_turn_is_recorded_with_what_it_saw_and_what_it_asked_for():
    world = started()
    ask(world, r.Raise("go", TWO), 2)
    world.now += SECOND
    turn(world, activity(0), h.TimerCreated(1, START + 9 * SECOND), status=THREE)
    instance = world.instance("a")
    assert instance.tail == [
        h.ExecutionStarted(START, "code", ONE),
        h.OrchestratorStarted(START + SECOND),
        h.EventRaised(START, "go", TWO),
        activity(0),
        h.TimerCreated(1, START + 9 * SECOND),
    ]
    assert (instance.status, instance.custom_status) == (h.Status.RUNNING, THREE)
    assert (instance.turn, instance.inbox) == (1, [])


def test_a_turn_that_is_out_is_not_handed_out_again():
    world = started()
    take(world)
    ask(world, r.Raise("go"), 2)
    assert world.next_work(world.nodes[0]) is None


def test_what_arrives_while_a_turn_is_out_is_seen_by_the_next():
    world = started()
    item = take(world)
    ask(world, r.Raise("go", TWO), 2)
    assert world.next_work(world.nodes[0]) is None
    world.step(step_of(item))
    assert take(world).arrivals == (h.EventRaised(START, "go", TWO),)


def test_a_step_that_comes_twice_counts_once():
    world = started()
    item = turn(world)
    ask(world, r.Raise("go"), 2)
    after = take(world)
    assert not world.step(step_of(item, activity(0)))
    assert world.step(step_of(after)), "the turn that is out must not be lost"
    assert world.instance("a").pending == {}
    assert world.nodes[0].core.stale == 1


def test_a_step_that_nobody_asked_for_is_dropped():
    world = started()
    item = take(world)
    assert not world.step(step_of(WorkItem("b", "x", 0, 0, item.started, ())))


def test_a_step_is_discarded_whole_if_its_instance_has_ended_meanwhile():
    world = started()
    item = take(world)
    ask(world, r.Terminate(), 2)
    before = len(world.nodes[0].journal)
    assert not world.step(step_of(item, activity(0), child(1), outcome=Completed()))
    world.commit_all()
    assert (world.running, world.frames, len(world.nodes[0].journal)) == ([], [], before)


def test_a_turn_of_a_replaced_execution_does_not_hold_up_the_next_one():
    world = started()
    old = take(world)
    ask(world, r.Terminate(), 2)
    ask(world, r.Restart(), 3)
    new = take(world)
    assert not world.step(step_of(old, activity(0)))
    assert world.step(step_of(new, outcome=Completed()))


def test_a_turn_of_a_purged_instance_does_not_hold_up_one_of_its_id():
    world = started()
    old = take(world)
    ask(world, r.Terminate(), 2)
    ask(world, r.Purge(), 3)
    assert not world.step(step_of(old))
    start(world, seq=4)
    assert turn(world).execution_id == derived_id("ann", 4, "a")


def test_a_suspension_while_a_turn_is_out_does_not_lose_it():
    world = started()
    item = take(world)
    ask(world, r.Suspend(), 2)
    assert world.step(step_of(item, activity(0)))
    assert world.instance("a").status is h.Status.SUSPENDED
    world.commit_all()
    world.activity_ended(run_of(world, 0), TWO)
    assert world.next_work(world.nodes[0]) is None
    ask(world, r.Resume(), 3)
    assert take(world).arrivals == (h.TaskCompleted(0, START, TWO),)


def test_time_never_goes_back_for_the_code():
    world = started()
    turn(world, h.TimerCreated(0, START + SECOND))
    world.now += SECOND
    world.fire(world.nodes[0])
    world.now -= SECOND  # the next owner's clock is behind
    assert take(world).at == START + SECOND


def test_a_body_that_returns_ends_the_instance():
    world = started()
    turn(world, activity(0), outcome=Completed(TWO))
    instance = world.instance("a")
    assert (instance.status, instance.output) == (h.Status.COMPLETED, TWO)
    assert instance.tail[-1] == h.ExecutionCompleted(START, h.Status.COMPLETED, TWO)
    assert (instance.pending, instance.completed_at) == ({}, START)


def test_a_body_that_raises_fails_the_instance():
    world = started()
    turn(world, outcome=Failed(BROKEN))
    instance = world.instance("a")
    assert (instance.status, instance.failure) == (h.Status.FAILED, BROKEN)
    assert instance.tail[-1] == h.ExecutionCompleted(START, h.Status.FAILED, failure=BROKEN)


def test_what_the_last_turn_asks_for_is_done_all_the_same():
    world = World(2)
    start(world, "a!0")
    event = h.EventSent(0, "b!1", "go", TWO)
    turn(world, event, instance_id="a!0", outcome=Completed())
    assert [frame.messages[0].instance_id for frame in world.frames] == ["b!1"]


def test_many_turns_are_handed_out_in_order_and_without_much_ado():
    world = World()
    core = world.nodes[0].core
    core.ready = type(core.ready).fromkeys(f"i{n}" for n in range(200_000))
    core.instances.update(dict.fromkeys(core.ready, Instance(**BARE, completed_at=1)))
    core.ready["a"] = None
    core.instances["a"] = Instance(**BARE)
    item = core.next_work(START)  # this would take a minute if it were quadratic
    assert item is not None
    assert item.instance_id == "a"


def test_what_has_begun_goes_before_what_has_not():
    world = World()
    for seq, instance_id in enumerate("abc", 1):
        start(world, instance_id, seq)
    turn(world, activity(0), instance_id="a")
    ask(world, r.Raise("go", TWO), 4, "c")  # news for one that has not begun make no difference
    world.activity_ended(run_of(world, 0), ONE)
    assert [take(world, each).instance_id for each in "abc"] == ["a", "b", "c"]
    assert not world.nodes[0].core.has_turns


def test_what_has_not_begun_does_not_wait_for_ever():
    world = World()
    for seq, instance_id in enumerate("ab", 1):
        start(world, instance_id, seq)
    turn(world, instance_id="a")
    for count in range(BEGIN_EVERY):
        ask(world, r.Raise("go", TWO), 3 + count, "a")
        item = world.next_work(world.nodes[0])
        assert item is not None
        if item.instance_id == "b":
            return
        world.step(step_of(item))
    raise AssertionError("b never began")


def test_one_that_is_suspended_before_it_began_begins_when_it_is_resumed():
    world = started()
    ask(world, r.Suspend(), 2)
    assert not world.nodes[0].core.has_turns
    ask(world, r.Resume(), 3)
    assert take(world).turn == 0


def test_a_new_owner_begins_what_has_not_begun():
    world = started()
    world.crash(world.nodes[0])
    assert take(world).turn == 0


# -- continue as new ---------------------------------------------------------------------------


def test_continue_as_new_starts_a_fresh_execution_of_the_same_instance():
    world = started()
    turn(world, h.TimerCreated(0, START + SECOND), activity(1), outcome=Continued(TWO))
    instance = world.instance("a")
    assert instance.execution_id == derived_id(FIRST, "next")
    assert instance.tail == [h.ExecutionStarted(START, "code", TWO)]
    assert (instance.turn, instance.timers, instance.pending) == (0, {}, {})
    assert take(world).turn == 0


def test_carried_events_come_before_those_that_arrived_meanwhile():
    world = started()
    for seq in (2, 3):
        ask(world, r.Raise("go", Raw(b"%d" % seq)), seq)
    item = take(world)
    ask(world, r.Raise("go", Raw(b"4")), 4)
    kept = item.arrivals[1]
    assert isinstance(kept, h.EventRaised)
    world.step(step_of(item, outcome=Continued(TWO, (kept,))))
    assert data_of(take(world).arrivals) == [b"3", b"4"]


def test_results_for_the_old_execution_are_dropped():
    world = started()
    turn(world, activity(0), h.TimerCreated(1, START + SECOND))
    ask(world, r.Raise("go"), 2)
    turn(world, outcome=Continued(TWO))
    turn(world, activity(0), h.TimerCreated(1, START + 5 * SECOND))
    new, old = run_of(world, 0), run_of(world, 0)
    world.activity_ended(old, ONE)
    world.now += SECOND
    world.fire(world.nodes[0])
    assert arrivals(world) == ()
    world.activity_ended(new, TWO)
    assert arrivals(world) == (h.TaskCompleted(0, world.now, TWO),)


# -- parked ------------------------------------------------------------------------------------


def test_a_parked_instance_keeps_its_inbox_and_says_why():
    world = started()
    ask(world, r.Raise("go"), 2)
    turn(world, activity(0), outcome=Parked("no such code"))
    instance = world.instance("a")
    assert (instance.parked, instance.turn, len(instance.inbox)) == ("no such code", 0, 1)
    snapshot = ask(world, r.Get(), 3)
    assert isinstance(snapshot, r.Snapshot)
    assert (snapshot.status, snapshot.reason) == (h.Status.PENDING, "no such code")
    assert world.running == []


def test_what_is_parked_is_known_until_its_code_fits_or_it_ends():
    world = started()
    core = world.nodes[0].core
    turn(world, outcome=Parked("no such code"))
    assert (list(core.parked), [each.parked for each in core.newly_parked]) == (
        ["a"],
        ["no such code"],
    )
    core.newly_parked.clear()
    ask(world, r.Raise("go"), 2)
    turn(world, outcome=Parked("no such code"))
    assert core.newly_parked == [], "nothing new"
    ask(world, r.Resume(), 3)
    turn(world, outcome=Parked("no such code"))
    assert len(core.newly_parked) == 1, "somebody has asked"
    ask(world, r.Raise("go"), 4)
    turn(world, outcome=Parked("other code"))
    assert len(core.newly_parked) == 2
    ask(world, r.Terminate(), 5)
    assert core.parked == {}


def test_what_is_parked_is_told_of_anew_by_the_next_owner():
    world = started()
    turn(world, outcome=Parked("no such code"))
    world.crash(world.nodes[0])
    core = world.nodes[0].core
    assert (list(core.parked), core.newly_parked) == (["a"], [])
    turn(world, outcome=Parked("no such code"))
    assert len(core.newly_parked) == 1
    ask(world, r.Raise("go"), 2)
    turn(world)
    assert core.parked == {}


def test_those_parked_for_one_reason_are_tried_again_as_far_as_they_are_in_memory():
    world = started()
    core = world.nodes[0].core
    turn(world, outcome=Parked("deadly"))
    core.parked["elsewhere"] = "deadly"
    core.retry_parked("no such code")
    assert world.next_work(world.nodes[0]) is None
    core.retry_parked("deadly")
    turn(world)
    assert (world.instance("a").parked, list(core.parked)) == ("", ["elsewhere"])


def test_a_parked_instance_is_tried_again_when_something_arrives():
    world = started()
    turn(world, outcome=Parked("no such code"))
    assert world.next_work(world.nodes[0]) is None
    ask(world, r.Raise("go"), 2)
    turn(world)
    assert world.instance("a").parked == ""


def test_a_parked_instance_is_tried_again_for_what_arrived_while_it_was_out():
    world = started()
    item = take(world)
    ask(world, r.Raise("go"), 2)
    assert world.next_work(world.nodes[0]) is None
    world.step(step_of(item, outcome=Parked("no such code")))
    assert len(take(world).arrivals) == 1


def test_a_parked_instance_is_tried_again_by_the_next_owner():
    world = started()
    turn(world, outcome=Parked("no such code"))
    world.crash(world.nodes[0])
    assert take(world).turn == 0


def test_parking_again_for_the_same_reason_writes_nothing():
    world = started()
    turn(world, outcome=Parked("no such code"))
    ask(world, r.Raise("go"), 2)
    before = len(world.nodes[0].journal)
    turn(world, outcome=Parked("no such code"))
    assert len(world.nodes[0].journal) == before
