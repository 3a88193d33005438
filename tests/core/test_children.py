"""Sub-orchestrations: started, retried, cancelled and heard of by message only."""

from __future__ import annotations

from msgspec import Raw

from shardrt.core import history as h, messages as m, requests as r
from shardrt.core.ids import derived_id
from shardrt.core.work import Completed, Continued, Failed
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
    turn,
)
from tests.core.world import START, World

FIRST = derived_id("ann", 1, "a!0")
RETRY = h.Retry(max_attempts=2, first_interval=SECOND)


def family(retry: h.Retry | None = None) -> World:
    """Return a world in which ``a!0`` has the child ``b!1``, on another partition."""
    world = World(2)
    start(world, "a!0")
    turn(world, child(0, "b!1", retry), instance_id="a!0")
    world.exchange()
    return world


def test_a_child_knows_its_parent():
    world = family()
    kid = world.instance("b!1")
    assert (kid.name, kid.input, kid.parent) == ("kid", TWO, h.Parent("a!0", FIRST, 0, "code"))
    snapshot = world.request("b!1", r.Get(), origin(9))
    assert isinstance(snapshot, r.Snapshot)
    assert snapshot.parent_instance_id == "a!0"


def test_its_result_is_news_for_the_parent():
    world = family()
    turn(world, instance_id="b!1", outcome=Completed(ONE))
    world.exchange()
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceCompleted(0, START, ONE),)


def test_its_failure_is_news_for_the_parent():
    world = family()
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceFailed(0, START, BROKEN),)


def test_a_terminated_child_has_failed_and_is_not_tried_again():
    world = family(RETRY)
    world.request("b!1", r.Terminate("enough"), origin(2))
    world.exchange()
    failure = h.Failure(type="OrchestrationTerminated", message="enough", non_retryable=True)
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceFailed(0, START, failure),)


def test_a_failed_child_is_started_again_after_the_delay():
    world = family(RETRY)
    first = world.instance("b!1").execution_id
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    assert arrivals(world, "a!0") == ()
    world.now += SECOND
    world.fire(world.nodes[0])
    world.commit_all()
    world.exchange()
    kid = world.instance("b!1")
    assert (kid.attempt, kid.status, kid.input) == (2, h.Status.PENDING, TWO)
    assert kid.execution_id != first
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceFailed(0, START + SECOND, BROKEN),)


def test_a_child_waits_for_its_next_attempt_also_with_a_new_owner():
    world = family(RETRY)
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    world.nodes[0].write_rows()
    world.crash(world.nodes[0])
    world.now += SECOND
    world.fire(world.nodes[0])
    world.commit_all()
    world.exchange()
    assert world.instance("b!1").attempt == 2


def test_a_child_of_an_id_that_is_open_fails():
    world = World(2)
    start(world, "b!1", seq=2)
    start(world, "a!0")
    turn(world, child(0, "b!1"), instance_id="a!0")
    world.exchange()
    failure = h.Failure(type="InstanceExists", message="instance 'b!1' is running")
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceFailed(0, START, failure),)
    assert world.instance("b!1").parent is None


def test_a_child_replaces_one_of_its_id_that_has_ended():
    world = World(2)
    start(world, "b!1", seq=2)
    turn(world, instance_id="b!1", outcome=Completed())
    start(world, "a!0")
    turn(world, child(0, "b!1"), instance_id="a!0")
    world.exchange()
    assert world.instance("b!1").parent == h.Parent("a!0", FIRST, 0, "code")
    answer = r.Started("b!1", derived_id("ann", 2, "b!1"))
    assert start(world, "b!1", seq=2, on_conflict="restart") == answer


def test_a_cancelled_child_is_terminated():
    world = family()
    ask(world, r.Raise("go"), 2, "a!0")
    turn(world, h.TaskCanceled(0), instance_id="a!0")
    world.exchange()
    kid = world.instance("b!1")
    assert (kid.status, kid.reason) == (h.Status.TERMINATED, "canceled by its parent")
    assert arrivals(world, "a!0") == ()


def test_cancelling_a_second_call_of_an_id_leaves_the_child_of_the_first_alone():
    world = family()
    ask(world, r.Raise("go"), 2, "a!0")
    turn(world, child(1, "b!1"), h.TaskCanceled(1), instance_id="a!0")
    world.exchange()
    assert world.instance("b!1").status is h.Status.PENDING
    turn(world, instance_id="b!1", outcome=Completed(ONE))
    world.exchange()
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceCompleted(0, START, ONE),)


def test_termination_reaches_all_descendants():
    world = family()
    turn(world, child(0, "c!0"), instance_id="b!1")
    world.exchange()
    ask(world, r.Terminate("enough"), 2, "a!0")
    world.exchange()
    told = [(world.instance(i).status, world.instance(i).reason) for i in ("a!0", "b!1", "c!0")]
    assert told == [(h.Status.TERMINATED, "enough")] * 3


def test_termination_can_leave_children_alone():
    world = family()
    ask(world, r.Terminate(recursive=False), 2, "a!0")
    world.exchange()
    assert world.instance("b!1").status is h.Status.PENDING


def test_only_the_parent_that_started_it_ends_a_child():
    world = family()
    kid = world.instance("b!1")
    for message in (
        m.TerminateChild("b!1", "another execution", 0, "x"),
        m.TerminateChild("b!1", FIRST, 7, "x"),
        m.TerminateChild("nobody!1", FIRST, 0, "x"),
    ):
        world.nodes[1].core.receive(0, 2, [message], START, 0.5)
        world.nodes[1].core.state.received[0] = 1
    assert kid.status is h.Status.PENDING


def test_an_end_that_the_parent_does_not_wait_for_is_dropped():
    world = family()
    ask(world, r.Raise("go"), 2, "a!0")
    turn(world, instance_id="a!0", outcome=Continued(TWO))
    turn(world, child(0, "other!1"), instance_id="a!0")
    turn(world, instance_id="b!1", outcome=Completed(ONE))
    world.exchange()
    assert arrivals(world, "a!0") == ()


def test_the_end_of_another_attempt_is_dropped():
    world = family(RETRY)
    ended = m.ChildEnded("a!0", FIRST, 0, 2, h.Status.COMPLETED, ONE)
    world.nodes[0].core.receive(1, 1, [ended], START, 0.5)
    assert arrivals(world, "a!0") == ()


def test_an_end_without_a_failure_still_is_one():
    world = family(RETRY)
    ended = m.ChildEnded("a!0", FIRST, 0, 1, h.Status.CANCELED)
    world.nodes[0].core.receive(1, 1, [ended], START, 0.5)
    failure = h.Failure(type="SubOrchestrationFailed")
    assert arrivals(world, "a!0") == (h.SubOrchestrationInstanceFailed(0, START, failure),)


def test_an_execution_never_has_the_id_of_an_earlier_one():
    """A parent may use a task id again: late results of the first child must not fit."""
    world = family()
    turn(world, activity(0), instance_id="b!1")
    old = run_of(world, 0)
    ask(world, r.Terminate(), 2, "b!1")
    world.exchange()
    turn(world, child(0, "b!1"), instance_id="a!0")
    world.exchange()
    turn(world, activity(0), instance_id="b!1")
    world.activity_ended(old, ONE)
    assert arrivals(world, "b!1") == ()


def test_an_event_reaches_an_instance_elsewhere():
    world = family()
    ask(world, r.Raise("go"), 2, "a!0")
    turn(world, h.EventSent(1, "b!1", "hi", ONE), instance_id="a!0")
    world.exchange()
    assert arrivals(world, "b!1") == (h.EventRaised(START, "hi", ONE),)


def test_an_event_to_nobody_or_to_the_dead_is_dropped():
    world = family()
    turn(world, instance_id="b!1", outcome=Completed())
    events = [h.EventSent(n, to, "hi", Raw(b"0")) for n, to in enumerate(["b!1", "no!1"], 1)]
    world.exchange()
    turn(world, *events, instance_id="a!0")
    world.exchange()
    assert world.instance("b!1").inbox == []
    assert "no!1" not in world.nodes[1].instances()
