"""Cancelling an instance: its code is told once, in its turn, and may clean up."""

from __future__ import annotations

import pytest

from shardrt.core import entries as e, history as h, messages as m, requests as r
from shardrt.core.entity import entity_id
from shardrt.core.ids import derived_id
from shardrt.core.work import Canceled, Completed, Continued, Failed, Parked
from tests.core.acts import (
    BROKEN,
    ONE,
    SECOND,
    TWO,
    activity,
    arrivals,
    ask,
    child,
    origin,
    run_of,
    start,
    step_of,
    take,
    turn,
)
from tests.core.world import START, World

CANCEL = h.CancelRequested(START, "enough")


def begun() -> World:
    """Return a world in which ``a`` waits for an activity."""
    world = World()
    start(world)
    turn(world, activity(1))
    return world


def family(*actions: h.Action) -> World:
    """Return a world in which ``a!0`` waits for its child ``b!1``, which has begun."""
    world = World(2)
    start(world, "a!0")
    turn(world, child(1, "b!1"), instance_id="a!0")
    world.exchange()
    turn(world, *actions, instance_id="b!1")
    world.exchange()
    return world


def test_its_code_is_told_and_its_end_has_the_reason():
    world = begun()
    assert ask(world, r.Cancel("enough"), 2) == r.Done()
    instance = world.instance("a")
    assert instance.status is h.Status.RUNNING
    item = turn(world, h.TaskCanceled(1), activity(2))
    assert item.arrivals == (CANCEL,)
    assert [each.task_id for each in world.canceled] == [1]
    world.activity_ended(run_of(world, 2), ONE)
    turn(world, outcome=Canceled("enough"))
    assert (instance.status, instance.reason) == (h.Status.CANCELED, "enough")
    assert instance.tail[-1] == h.ExecutionCompleted(START, h.Status.CANCELED)
    snapshot = ask(world, r.Get(), 3)
    assert isinstance(snapshot, r.Snapshot)
    assert (snapshot.status, snapshot.reason) == (h.Status.CANCELED, "enough")


def test_it_may_end_otherwise():
    for outcome, status in (
        (Completed(ONE), h.Status.COMPLETED),
        (Failed(BROKEN), h.Status.FAILED),
    ):
        world = begun()
        ask(world, r.Cancel("enough"), 2)
        turn(world, outcome=outcome)
        assert (world.instance("a").status, world.instance("a").reason) == (status, "")


def test_asking_again_changes_nothing_also_when_it_has_been_told():
    world = begun()
    assert ask(world, r.Cancel("enough"), 2) == ask(world, r.Cancel("enough"), 2) == r.Done()
    assert ask(world, r.Cancel("more"), 3) == r.Done()
    turn(world, activity(2))
    assert ask(world, r.Cancel("more"), 4) == r.Done()
    assert arrivals(world) == ()
    written = [each for each in world.nodes[0].entries() if isinstance(each, e.CancelRequested)]
    assert written == [e.CancelRequested(START, "a", "enough", origin(2))]


def test_what_has_ended_or_is_not_there_cannot_be_canceled():
    world = begun()
    ask(world, r.Terminate(), 2)
    finished = r.Refusal("InstanceFinished", "instance 'a' has ended: Terminated")
    assert ask(world, r.Cancel(), 3) == finished
    missing = r.Refusal("InstanceNotFound", "there is no instance 'b'")
    assert ask(world, r.Cancel(), 4, "b") == missing


def test_an_entity_cannot_be_canceled():
    name = entity_id("acc", "a")
    refusal = r.Refusal("InputInvalid", f"{name!r} is an entity: it cannot be canceled")
    assert ask(World(), r.Cancel(), 1, name) == refusal


@pytest.mark.parametrize("when", ["ready", "later", "suspended", "parked", "handed out"])
def test_one_that_has_not_begun_ends_at_once(when: str):
    world = World()
    start(world, start_at=START + SECOND if when == "later" else None)
    item = take(world) if when == "handed out" else None
    if when == "suspended":
        ask(world, r.Suspend(), 2)
    if when == "parked":
        assert world.step(step_of(take(world), outcome=Parked("no code")))
    assert ask(world, r.Cancel("enough"), 3) == r.Done()
    instance = world.instance("a")
    assert (instance.status, instance.reason) == (h.Status.CANCELED, "enough")
    assert (instance.suspended, instance.parked, instance.timers) == (False, "", {})
    assert instance.tail[-2:] == [CANCEL, h.ExecutionCompleted(START, h.Status.CANCELED)]
    world.now += 2 * SECOND
    world.fire(world.nodes[0])
    assert world.next_work(world.nodes[0]) is None
    assert item is None or not world.step(step_of(item, activity(1)))


def test_a_suspended_one_is_told_when_it_goes_on():
    world = begun()
    ask(world, r.Suspend(), 2)
    ask(world, r.Cancel("enough"), 3)
    assert world.next_work(world.nodes[0]) is None
    assert world.instance("a").status is h.Status.SUSPENDED
    ask(world, r.Resume(), 4)
    assert turn(world).arrivals == (CANCEL,)


def test_a_parked_one_is_told_when_its_code_can_run():
    world = begun()
    ask(world, r.Cancel("enough"), 2)
    assert world.step(step_of(take(world), outcome=Parked("no code")))
    assert world.instance("a").status is h.Status.RUNNING
    ask(world, r.Resume(), 3)
    assert turn(world).arrivals == (CANCEL,)


def test_it_survives_a_crash_and_is_told_once():
    world = begun()
    ask(world, r.Cancel("enough"), 2)
    world.crash(world.nodes[0])
    assert ask(world, r.Cancel("enough"), 2) == r.Done()
    assert turn(world).arrivals == (CANCEL,)
    world.crash(world.nodes[0])
    assert ask(world, r.Cancel("again"), 3) == r.Done()
    assert arrivals(world) == ()


# -- continue as new, rewinding --------------------------------------------------------------------


def test_a_later_execution_has_begun_before_its_first_turn():
    world = begun()
    ask(world, r.Raise("go"), 2)
    turn(world, outcome=Continued(TWO))
    ask(world, r.Suspend(), 3)
    ask(world, r.Resume(), 4)
    ask(world, r.Cancel("enough"), 5)
    assert world.instance("a").status is h.Status.RUNNING
    assert turn(world).arrivals == (CANCEL,)


def test_what_an_execution_has_not_seen_the_next_one_is_told():
    world = begun()
    ask(world, r.Raise("go"), 2)
    item = take(world)
    ask(world, r.Cancel("enough"), 3)
    assert world.step(step_of(item, outcome=Continued(TWO)))
    assert ask(world, r.Cancel("again"), 4) == r.Done()
    assert turn(world).arrivals == (CANCEL,)


def test_what_the_code_hands_on_the_next_one_is_told():
    world = begun()
    ask(world, r.Cancel("enough"), 2)
    turn(world, outcome=Continued(TWO, (CANCEL,)))
    assert ask(world, r.Cancel("again"), 3) == r.Done()
    assert turn(world).arrivals == (CANCEL,)


def test_the_next_execution_can_be_canceled_if_one_went_on_in_spite_of_it():
    world = begun()
    ask(world, r.Cancel("enough"), 2)
    turn(world, outcome=Continued(TWO))
    ask(world, r.Cancel("again"), 3)
    assert turn(world).arrivals == (h.CancelRequested(START, "again"),)


def test_a_cleanup_that_failed_is_rewound_and_still_canceled():
    world = begun()
    ask(world, r.Cancel("enough"), 2)
    turn(world, h.TaskCanceled(1), activity(2))
    world.activity_ended(run_of(world, 2), BROKEN)
    turn(world, outcome=Failed(BROKEN))
    ask(world, r.Rewind(), 3)
    assert ask(world, r.Cancel("again"), 4) == r.Done()
    assert arrivals(world) == ()
    world.activity_ended(run_of(world, 2), ONE)
    turn(world, outcome=Canceled("enough"))
    assert world.instance("a").status is h.Status.CANCELED


def test_a_rewound_one_is_told_again_what_came_after_the_failure():
    world = begun()
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, activity(2))
    ask(world, r.Cancel("enough"), 2)
    turn(world, outcome=Failed(BROKEN))
    ask(world, r.Rewind(), 3)
    assert arrivals(world) == (CANCEL,)
    assert world.instance("a").cancel_requested


def test_a_canceled_one_cannot_be_rewound_and_can_be_restarted():
    world = begun()
    ask(world, r.Cancel("enough"), 2)
    turn(world, outcome=Canceled("enough"))
    refused = r.Refusal("InstanceNotFailed", "instance 'a' has not failed: Canceled")
    assert ask(world, r.Rewind(), 3) == refused
    assert isinstance(ask(world, r.Restart(), 4), r.Started)
    ask(world, r.Cancel("anew"), 5)
    assert world.instance("a").reason == "anew"


# -- families --------------------------------------------------------------------------------------


def test_a_child_that_is_waited_for_is_told_and_not_terminated():
    world = family(activity(1))
    ask(world, r.Cancel("enough"), 2, "a!0")
    turn(world, h.TaskCanceled(1, cooperative=True), instance_id="a!0", outcome=Canceled("enough"))
    world.exchange()
    assert turn(world, instance_id="b!1", outcome=Canceled("enough")).arrivals == (CANCEL,)
    kid = world.instance("b!1")
    assert (kid.status, kid.reason) == (h.Status.CANCELED, "enough")
    world.exchange()


def test_a_child_that_has_not_begun_ends_at_once():
    world = World(2)
    start(world, "a!0")
    turn(world, child(1, "b!1"), instance_id="a!0")
    ask(world, r.Cancel("enough"), 2, "a!0")
    turn(world, h.TaskCanceled(1, cooperative=True), instance_id="a!0")
    world.exchange()
    assert world.instance("b!1").status is h.Status.CANCELED


def test_a_child_given_up_in_a_later_turn_is_terminated_as_ever():
    world = family()
    ask(world, r.Cancel("enough"), 2, "a!0")
    turn(world, activity(2), instance_id="a!0")
    world.activity_ended(run_of(world, 2), ONE)
    turn(world, h.TaskCanceled(1, cooperative=True), instance_id="a!0")
    world.exchange()
    kid = world.instance("b!1")
    assert (kid.status, kid.reason) == (h.Status.TERMINATED, "canceled by its parent")


def test_a_child_that_was_asked_already_is_not_told_twice():
    world = family(activity(1))
    ask(world, r.Cancel("mine"), 2, "b!1")
    ask(world, r.Cancel("enough"), 3, "a!0")
    turn(world, h.TaskCanceled(1, cooperative=True), instance_id="a!0")
    world.exchange()
    assert arrivals(world, "b!1") == (h.CancelRequested(START, "mine"),)


def test_only_the_parent_that_started_it_cancels_a_child():
    world = family()
    for message in (
        m.CancelChild("b!1", "another execution", 1, "x"),
        m.CancelChild("b!1", derived_id("ann", 1, "a!0"), 7, "x"),
        m.CancelChild("nobody!1", derived_id("ann", 1, "a!0"), 1, "x"),
    ):
        world.nodes[1].core.receive(0, 2, [message], START, 0.5)
        world.nodes[1].core.state.received[0] = 1
    assert arrivals(world, "b!1") == ()


def test_its_parent_sees_a_failure_that_is_not_tried_again():
    world = World(2)
    start(world, "a!0")
    retry = h.Retry(max_attempts=3, first_interval=SECOND)
    turn(world, child(1, "b!1", retry), instance_id="a!0")
    world.exchange()
    ask(world, r.Cancel("enough"), 2, "b!1")
    world.exchange()
    failure = h.Failure(type="OrchestrationCanceled", message="enough", non_retryable=True)
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceFailed(1, START, failure),)


# -- children that clean up by themselves ----------------------------------------------------------


def leaving() -> World:
    """Return a world in which ``a!0`` was cancelled, as was ``b!1``, and both still clean up."""
    world = family(activity(1))
    ask(world, r.Cancel("enough"), 2, "a!0")
    turn(world, h.TaskCanceled(1, cooperative=True), activity(2), instance_id="a!0")
    world.exchange()
    turn(world, h.TaskCanceled(1), activity(3), instance_id="b!1")
    return world


def test_terminating_the_parent_ends_a_child_that_still_cleans_up():
    for recursive, status in ((True, h.Status.TERMINATED), (False, h.Status.RUNNING)):
        world = leaving()
        world.crash(world.nodes[0])
        ask(world, r.Terminate("at once", recursive=recursive), 3, "a!0")
        world.exchange()
        assert world.instance("b!1").status is status


def test_terminating_reaches_grandchildren_that_still_clean_up():
    world = family(child(1, "c!0"))
    world.exchange()
    turn(world, activity(1), instance_id="c!0")
    ask(world, r.Cancel("enough"), 2, "a!0")
    for name in ("a!0", "b!1"):
        cancel = h.TaskCanceled(1, cooperative=True)
        turn(world, cancel, activity(2), instance_id=name)
        world.exchange()
    assert arrivals(world, "c!0") == (CANCEL,)
    turn(world, instance_id="c!0")
    ask(world, r.Terminate("at once"), 3, "a!0")
    world.exchange()
    world.exchange()
    assert world.instance("c!0").status is h.Status.TERMINATED


def test_a_child_that_has_cleaned_up_is_forgotten_and_its_end_not_told():
    world = leaving()
    world.activity_ended(run_of(world, 3), ONE)
    turn(world, instance_id="b!1", outcome=Canceled("enough"))
    world.exchange()
    parent = world.instance("a!0")
    assert (parent.leaving, parent.inbox) == ({}, [])


def test_a_child_that_was_to_be_tried_again_has_nothing_to_clean_up():
    world = World(2)
    start(world, "a!0")
    retry = h.Retry(max_attempts=3, first_interval=SECOND)
    turn(world, child(1, "b!1", retry), instance_id="a!0")
    world.exchange()
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    ask(world, r.Cancel("enough"), 2, "a!0")
    turn(world, h.TaskCanceled(1, cooperative=True), instance_id="a!0")
    assert world.instance("a!0").leaving == {}


def test_a_child_given_up_before_the_cancellation_in_its_turn_is_terminated():
    world = family(activity(1))
    ask(world, r.Cancel("enough"), 2, "a!0")
    turn(world, h.TaskCanceled(1), instance_id="a!0")
    world.exchange()
    kid = world.instance("b!1")
    assert (kid.status, kid.reason) == (h.Status.TERMINATED, "canceled by its parent")


def test_a_rewound_parent_that_knows_of_it_leaves_its_child_alone_until_terminated():
    world = leaving()
    world.activity_ended(run_of(world, 2), BROKEN)
    turn(world, instance_id="a!0", outcome=Failed(BROKEN))
    ask(world, r.Rewind(), 3, "a!0")
    world.exchange()
    assert world.instance("b!1").status is h.Status.RUNNING
    ask(world, r.Terminate("at once"), 4, "a!0")
    world.exchange()
    assert world.instance("b!1").status is h.Status.TERMINATED


def test_a_rewound_parent_hears_no_more_of_a_child_that_has_cleaned_up_meanwhile():
    world = leaving()
    world.activity_ended(run_of(world, 2), BROKEN)
    turn(world, instance_id="a!0", outcome=Failed(BROKEN))
    world.activity_ended(run_of(world, 3), ONE)
    turn(world, instance_id="b!1", outcome=Canceled("enough"))
    world.exchange()
    assert world.instance("a!0").leaving == {}
    ask(world, r.Rewind(), 3, "a!0")
    assert arrivals(world, "a!0") == ()


def test_a_rewound_parent_that_forgets_its_call_ends_the_child():
    world = World(2)
    start(world, "a!0")
    turn(world, activity(1), instance_id="a!0")
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, child(2, "b!1"), instance_id="a!0")
    world.exchange()
    turn(world, activity(1), instance_id="b!1")
    ask(world, r.Cancel("enough"), 2, "a!0")
    failed = Failed(BROKEN)
    turn(world, h.TaskCanceled(2, cooperative=True), instance_id="a!0", outcome=failed)
    world.exchange()
    assert arrivals(world, "b!1") == (CANCEL,)
    ask(world, r.Rewind(), 3, "a!0")
    world.exchange()
    kid = world.instance("b!1")
    assert (kid.status, kid.reason) == (h.Status.TERMINATED, "its parent was rewound")
    assert world.instance("a!0").leaving == {}


def test_a_rewound_parent_waits_again_for_a_child_that_it_forgets_to_have_cancelled():
    world = family(activity(1))
    ask(world, r.Cancel("enough"), 2, "a!0")
    failed = Failed(BROKEN)
    turn(world, h.TaskCanceled(1, cooperative=True), instance_id="a!0", outcome=failed)
    world.exchange()
    ask(world, r.Rewind(), 3, "a!0")
    world.exchange()
    parent = world.instance("a!0")
    assert (list(parent.children), parent.leaving) == ([1], {})
    assert world.instance("b!1").status is h.Status.RUNNING
    turn(world, instance_id="b!1", outcome=Canceled("enough"))
    world.exchange()
    assert len(arrivals(world, "a!0")) == 2
