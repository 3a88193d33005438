"""Rewinding: what failed runs again, what succeeded stays, nothing of the old execution comes."""

from __future__ import annotations

import pytest
from msgspec import Raw

from shardrt.core import entity as en, entries as e, history as h, messages as m, requests as r
from shardrt.core.ids import derived_id
from shardrt.core.rewinding import plan_of
from shardrt.core.work import Completed, Continued, Failed
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
    origin,
    run_of,
    start,
    step_of,
    take,
    turn,
)
from tests.core.world import START, World

FIRST = derived_id("ann", 1, "a")
SECOND_EXECUTION = derived_id(FIRST, "rewound")
RETRY = h.Retry(max_attempts=2, first_interval=SECOND)


def rewind(world: World, instance_id: str = "a", seq: int = 50) -> object:
    return ask(world, r.Rewind("once more"), seq, instance_id)


def failed_at_its_second_activity() -> World:
    """Return a world in which ``a`` has one success, and then a failure that it did not catch."""
    world = World()
    start(world)
    turn(world, activity(1))
    world.activity_ended(run_of(world, 1), ONE)
    turn(world, activity(2))
    world.activity_ended(run_of(world, 2), BROKEN)
    turn(world, outcome=Failed(BROKEN))
    return world


def test_what_runs_again_has_its_time_for_all_attempts():
    world = World()
    start(world)
    turn(world, activity(1, h.Retry(max_attempts=1, first_interval=0, total=5 * SECOND)))
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, outcome=Failed(BROKEN))
    world.now += SECOND
    rewind(world)
    world.now += 5 * SECOND
    world.fire(world.nodes[0])
    (failed,) = arrivals(world)
    assert isinstance(failed, h.TaskFailed)
    assert failed.failure.type == "TimeoutError"


def test_only_what_failed_runs_again():
    world = failed_at_its_second_activity()
    assert rewind(world) == r.Done()
    instance = world.instance("a")
    assert (instance.status, instance.failure, instance.completed_at) == (
        h.Status.RUNNING,
        None,
        None,
    )
    assert (instance.turn, list(instance.pending)) == (2, [2])
    (run,) = world.running
    assert (run.task_id, run.attempt, run.execution_id) == (2, 1, SECOND_EXECUTION)
    world.activity_ended(run, TWO)
    item = turn(world, outcome=Completed(THREE))
    assert (item.turn, item.seed) == (2, FIRST)
    assert item.arrivals == (h.TaskCompleted(2, START, TWO),)
    assert world.instance("a").output == THREE


def test_its_history_ends_before_the_failure_and_tells_of_the_rewind():
    world = failed_at_its_second_activity()
    rewind(world)
    node = world.node_of("a")
    history = node.whole_history(world.instance("a"))
    assert [type(event).__name__ for event in history] == [
        "ExecutionStarted",
        "OrchestratorStarted",
        "TaskScheduled",
        "OrchestratorStarted",
        "TaskCompleted",
        "TaskScheduled",
        "ExecutionRewound",
    ]
    node.write_rows()
    assert list(node.history) == [("a", SECOND_EXECUTION)]


def test_what_the_old_execution_still_gets_does_not_count():
    world = World()
    start(world)
    turn(world, activity(1), activity(2))
    late = run_of(world, 2)
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, outcome=Failed(BROKEN))
    rewind(world)
    world.activity_ended(late, TWO)
    assert arrivals(world) == ()
    assert [run.task_id for run in world.running] == [1, 2]


def test_a_success_that_came_with_the_failure_or_after_it_is_given_again():
    world = World()
    start(world)
    turn(world, activity(1), activity(2), activity(3), h.TimerCreated(4, START + SECOND))
    world.activity_ended(run_of(world, 1), BROKEN)
    world.activity_ended(run_of(world, 2), TWO)
    ask(world, r.Raise("go", ONE), 2)
    turn(world, activity(5))
    world.now += SECOND
    world.fire(world.nodes[0])
    world.activity_ended(run_of(world, 5), THREE)
    turn(world, activity(6))
    world.activity_ended(run_of(world, 3), THREE)
    item = take(world)
    ask(world, r.Raise("go", TWO), 3)  # not seen by the turn that fails
    assert world.step(step_of(item, outcome=Failed(BROKEN)))
    world.commit_all()
    rewind(world)
    assert arrivals(world) == (
        h.TaskCompleted(2, START, TWO),
        h.EventRaised(START, "go", ONE),
        h.TimerFired(4, START + SECOND),
        h.TaskCompleted(3, START + SECOND, THREE),
        h.EventRaised(START + SECOND, "go", TWO),
    )
    assert list(world.instance("a").pending) == [1], "what was asked for later is forgotten"


def test_timers_are_armed_again_also_cancelled_ones():
    world = World()
    start(world)
    turn(world, activity(1), h.TimerCreated(2, START + SECOND), h.TimerCreated(3, START + SECOND))
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, h.TimerCanceled(3), outcome=Failed(BROKEN))
    rewind(world)
    world.now += SECOND
    world.fire(world.nodes[0])
    assert arrivals(world) == (
        h.TimerFired(2, START + SECOND),
        h.TimerFired(3, START + SECOND),
    )


def test_without_any_failure_from_outside_the_last_turn_runs_again():
    world = World()
    start(world)
    turn(world, activity(1))
    world.activity_ended(run_of(world, 1), ONE)
    turn(world, activity(2))
    world.activity_ended(run_of(world, 2), TWO)
    turn(world, activity(3), outcome=Failed(BROKEN))
    rewind(world)
    assert arrivals(world) == (h.TaskCompleted(2, START, TWO),)
    item = turn(world, outcome=Completed(ONE))
    assert item.turn == 2


def test_one_that_failed_in_its_first_turn_begins_again():
    world = World()
    start(world)
    turn(world, outcome=Failed(BROKEN))
    rewind(world)
    item = turn(world, outcome=Completed(ONE))
    assert (item.turn, item.started.input, item.seed) == (0, ONE, FIRST)


def test_it_can_be_rewound_again_and_again():
    world = failed_at_its_second_activity()
    for seq in (50, 51, 52):
        rewind(world, seq=seq)
        world.activity_ended(run_of(world, 2), BROKEN)
        turn(world, outcome=Failed(BROKEN))
    rewind(world, seq=53)
    instance = world.instance("a")
    assert (instance.turn, instance.seed) == (2, FIRST)
    world.activity_ended(run_of(world, 2), ONE)
    turn(world, outcome=Completed(ONE))
    assert world.instance("a").status is h.Status.COMPLETED


def test_a_repeated_request_rewinds_once():
    world = failed_at_its_second_activity()
    rewind(world)
    assert rewind(world) == r.Done()
    assert len(world.node_of("a").core.rewinds) == 1


@pytest.mark.parametrize("outcome", [None, Completed(ONE)], ids=["open", "completed"])
def test_only_what_has_failed_can_be_rewound(outcome):
    world = World()
    start(world)
    turn(world, outcome=outcome)
    refusal = rewind(world)
    assert isinstance(refusal, r.Refusal)
    assert refusal.code == "InstanceNotFailed"


def test_what_does_not_exist_cannot_be_rewound():
    refusal = rewind(World())
    assert isinstance(refusal, r.Refusal)
    assert refusal.code == "InstanceNotFound"


def test_the_next_execution_sees_its_own_id_again():
    world = failed_at_its_second_activity()
    rewind(world)
    world.activity_ended(run_of(world, 2), TWO)
    turn(world, outcome=Continued(ONE))
    assert take(world).seed == ""


def test_after_a_crash_it_goes_on_rewound():
    world = failed_at_its_second_activity()
    rewind(world)
    world.crash(world.nodes[0])
    world.activity_ended(run_of(world, 2), TWO)
    turn(world, outcome=Completed(THREE))
    assert world.instance("a").output == THREE


# -- children ----------------------------------------------------------------------------------

PARENT = derived_id("ann", 1, "a!0")
REWOUND = derived_id(PARENT, "rewound")


def family(retry: h.Retry | None = None) -> World:
    world = World(2)
    start(world, "a!0")
    turn(world, child(1, "b!1", retry), activity(2), instance_id="a!0")
    world.exchange()
    return world


def parent_fails(world: World) -> None:
    turn(world, instance_id="a!0", outcome=Failed(BROKEN))


def parent_is_rewound(world: World, seq: int = 50) -> None:
    assert rewind(world, "a!0", seq) == r.Done()
    world.exchange()


def test_a_failed_child_is_rewound_with_its_parent():
    world = family()
    turn(world, activity(7), instance_id="b!1")
    world.activity_ended(run_of(world, 7), BROKEN)
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    parent_fails(world)
    parent_is_rewound(world)
    kid = world.instance("b!1")
    assert (kid.status, list(kid.pending)) == (h.Status.RUNNING, [7])
    assert kid.parent == h.Parent("a!0", REWOUND, 1, "code")
    world.activity_ended(run_of(world, 7), ONE)
    turn(world, instance_id="b!1", outcome=Completed(TWO))
    world.exchange()
    completed = h.SubOrchestrationInstanceCompleted(1, START, TWO)
    assert arrivals(world, "a!0") == (completed,)


def test_a_family_is_rewound_down_to_where_it_failed():
    world = World(2)
    start(world, "a!0")
    turn(world, child(1, "b!1"), instance_id="a!0")
    world.exchange()
    turn(world, child(1, "c!0"), instance_id="b!1")
    world.exchange()
    turn(world, activity(1), instance_id="c!0")
    world.activity_ended(run_of(world, 1), BROKEN)
    for instance_id in ("c!0", "b!1", "a!0"):
        turn(world, instance_id=instance_id, outcome=Failed(BROKEN))
        world.exchange()
    parent_is_rewound(world)
    world.activity_ended(run_of(world, 1), ONE)
    for instance_id in ("c!0", "b!1", "a!0"):
        turn(world, instance_id=instance_id, outcome=Completed(ONE))
        world.exchange()
    assert world.instance("a!0").status is h.Status.COMPLETED


def activity_fails(world: World) -> None:
    world.activity_ended(run_of(world, 2), BROKEN)
    parent_fails(world)


def test_a_running_child_answers_the_new_execution():
    world = family()
    activity_fails(world)
    parent_is_rewound(world)
    turn(world, instance_id="b!1", outcome=Completed(TWO))
    world.exchange()
    completed = h.SubOrchestrationInstanceCompleted(1, START, TWO)
    assert arrivals(world, "a!0") == (completed,)


def test_a_child_that_completed_after_the_failure_answers_again():
    world = family()
    activity_fails(world)
    turn(world, instance_id="b!1", outcome=Completed(TWO))
    world.exchange()
    parent_is_rewound(world)
    completed = h.SubOrchestrationInstanceCompleted(1, START, TWO)
    assert arrivals(world, "a!0") == (completed,)


@pytest.mark.parametrize("gone", [r.Purge(), None], ids=["purged", "terminated"])
def test_a_child_that_is_gone_is_started_anew(gone):
    world = family(RETRY)
    ask(world, r.Terminate(), 2, "b!1")
    if gone is not None:
        ask(world, gone, 3, "b!1")
    world.exchange()
    parent_fails(world)
    parent_is_rewound(world)
    kid = world.instance("b!1")
    assert (kid.status, kid.input) == (h.Status.PENDING, TWO)
    assert kid.parent == h.Parent("a!0", REWOUND, 1, "code")


def test_an_instance_of_that_id_that_is_not_the_child_is_left_alone():
    world = World(2)
    start(world, "b!1", seq=2)
    start(world, "a!0")
    turn(world, child(1, "b!1"), instance_id="a!0")
    world.exchange()
    parent_fails(world)
    parent_is_rewound(world)
    assert world.instance("b!1").parent is None
    (failed,) = arrivals(world, "a!0")
    assert isinstance(failed, h.SubOrchestrationInstanceFailed)
    assert failed.failure.type == "InstanceExists"


def test_a_child_asked_for_after_the_failure_is_terminated_and_started_by_the_new_code():
    world = World(2)
    start(world, "a!0")
    turn(world, activity(1), instance_id="a!0")
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, child(2, "b!1"), instance_id="a!0")
    world.exchange()
    ask(world, r.Raise("go"), 2, "a!0")
    parent_fails(world)
    parent_is_rewound(world)
    assert world.instance("b!1").status is h.Status.TERMINATED
    world.activity_ended(run_of(world, 1), ONE)
    turn(world, child(2, "b!1"), instance_id="a!0")
    world.exchange()
    assert world.instance("b!1").status is h.Status.PENDING


def test_a_child_that_its_caller_cancelled_is_not_an_orphan():
    events: list[h.HistoryEvent] = [
        h.ExecutionStarted(1, "code", ONE),
        h.OrchestratorStarted(1),
        activity(1),
        h.OrchestratorStarted(2),
        h.TaskFailed(1, 2, BROKEN),
        child(2, "b"),
        child(3, "c"),
        h.OrchestratorStarted(3),
        h.TaskCanceled(2),
        h.ExecutionCompleted(3, h.Status.FAILED, h.NULL, BROKEN),
    ]
    assert plan_of(events, ()).orphans == ((3, "c"),)


def test_the_message_and_the_rewind_of_the_child_are_in_one_record():
    world = family()
    turn(world, instance_id="b!1", outcome=Failed(BROKEN))
    world.exchange()
    parent_fails(world)
    parent_is_rewound(world)
    entries = world.nodes[1].entries()
    places = [n for n, entry in enumerate(entries) if isinstance(entry, e.Rewound)]
    for place in places:
        received = entries[place - 1]
        assert isinstance(received, e.Received)
        assert isinstance(received.message, m.RewindChild)
    assert len(places) == 1


def test_a_history_that_cannot_be_read_leaves_the_beginning():
    world = failed_at_its_second_activity()
    node = world.node_of("a")
    node.core.rewind("a", r.Rewind(), (), origin(50), world.now, None)
    world.commit_all()
    instance = world.instance("a")
    assert (instance.turn, instance.pending) == (0, {})
    assert take(world).started.input == Raw(b"1")


# -- entities ----------------------------------------------------------------------------------


def test_an_operation_that_failed_is_asked_for_again():
    world = World(2)
    start(world, "a!0")
    call = h.EntityOperationCalled(1, "@acc@b!1", "add", ONE)
    turn(world, call, instance_id="a!0")
    world.exchange()
    answer_entity(world, BROKEN)
    parent_fails(world)
    parent_is_rewound(world)
    answer_entity(world, None)
    completed = h.EntityOperationCompleted(1, START, TWO)
    assert arrivals(world, "a!0") == (completed,)


def answer_entity(world: World, failure: h.Failure | None) -> None:
    work = world.next_entity_work(world.nodes[1])
    assert work is not None
    result = en.OperationResult(TWO, failure)
    assert world.step_entity(en.EntityStep(work.instance_id, work.token, (result,)))
    world.commit_all()
    world.exchange()


def test_a_critical_section_that_was_open_runs_again_as_a_whole():
    locked = h.EntityLockRequested(2, "s", ("@a@1", "@a@2"))
    history: list[h.HistoryEvent] = [
        h.ExecutionStarted(1, "code", ONE),
        h.OrchestratorStarted(1),
        activity(1),
        h.OrchestratorStarted(2),
        h.TaskCompleted(1, 2, ONE),
        locked,
        h.OrchestratorStarted(3),
        h.EntityLockGranted(2, 3),
        activity(3),
        h.OrchestratorStarted(4),
        h.TaskFailed(3, 4, BROKEN),
        h.ExecutionCompleted(4, h.Status.FAILED, h.NULL, BROKEN),
    ]
    plan = plan_of(history, ())
    assert list(plan.history) == history[:3]
    assert plan.inbox == (h.TaskCompleted(1, 2, ONE),)


def test_a_critical_section_that_was_left_stays_left():
    history: list[h.HistoryEvent] = [
        h.ExecutionStarted(1, "code", ONE),
        h.OrchestratorStarted(1),
        h.EntityLockRequested(2, "s", ("@a@1",)),
        h.EntityLockRequested(3, "t", ("@a@2",)),
        h.OrchestratorStarted(2),
        h.EntityLockGranted(2, 2),
        h.EntityUnlockSent(4, "s", "@a@1"),
        h.TaskCanceled(3),
        activity(5),
        h.OrchestratorStarted(3),
        h.TaskFailed(5, 3, BROKEN),
    ]
    assert len(plan_of(history, ()).history) == 9
