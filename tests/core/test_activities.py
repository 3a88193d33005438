"""Activities and timers: started once durable, counted, retried, and over exactly once."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from shardrt.core import entries as e, history as h, requests as r
from shardrt.core.effects import CancelActivity, RunActivity
from shardrt.core.ids import derived_id
from shardrt.core.timers import DUE_MAX
from shardrt.core.work import Completed, Continued
from tests.core.acts import (
    BROKEN,
    ONE,
    SECOND,
    THREE,
    TWO,
    activity,
    arrivals,
    ask,
    run_of,
    start,
    step_of,
    take,
    turn,
)
from tests.core.world import START, World

FIRST = derived_id("ann", 1, "a")
RETRY = h.Retry(max_attempts=3, first_interval=SECOND)


def running(retry: h.Retry | None = None) -> World:
    """Return a world in which an activity of instance ``a`` has started."""
    world = World()
    start(world)
    turn(world, activity(0, retry, timeout=9))
    return world


def test_an_activity_starts_once_its_turn_is_durable():
    world = World()
    start(world)
    world.step(step_of(take(world), activity(0, timeout=9)))
    assert world.running == []
    world.commit_all()
    assert world.running == [RunActivity("a", FIRST, 0, 1, "act", ONE, 9)]


def test_a_speculative_activity_may_start_before_that():
    world = World()
    start(world)
    world.step(step_of(take(world), activity(0, speculative=True)))
    core = world.nodes[0].core
    assert core.speculative == [RunActivity("a", FIRST, 0, 1, "act", ONE)]
    assert core.effects == []


def test_its_result_is_news():
    world = running()
    world.activity_ended(run_of(world, 0), TWO)
    assert turn(world).arrivals == (h.TaskCompleted(0, START, TWO),)


def test_its_failure_is_news():
    world = running()
    world.activity_ended(run_of(world, 0), BROKEN)
    assert turn(world).arrivals == (h.TaskFailed(0, START, BROKEN),)


def test_a_result_that_comes_twice_counts_once():
    world = running()
    run = run_of(world, 0)
    world.activity_ended(run, TWO)
    world.activity_ended(run, THREE)
    assert arrivals(world) == (h.TaskCompleted(0, START, TWO),)
    assert world.nodes[0].core.stale == 1


def test_a_late_result_of_an_older_execution_is_dropped():
    world = running()
    old = run_of(world, 0)
    ask(world, r.Terminate(), 2)
    ask(world, r.Restart(), 3)
    turn(world, activity(0))
    world.activity_ended(old, TWO)
    assert arrivals(world) == ()


def test_a_result_for_a_purged_instance_is_dropped():
    world = running()
    old = run_of(world, 0)
    ask(world, r.Terminate(), 2)
    ask(world, r.Purge(), 3)
    world.activity_ended(old, TWO)
    assert world.nodes[0].core.stale == 1


def test_a_failed_attempt_is_followed_by_another_one_after_the_delay():
    world = running(RETRY)
    node = world.nodes[0]
    world.activity_ended(run_of(world, 0), BROKEN)
    world.commit_all()
    assert node.entries()[-1] == e.Retried(START, "a", 0, BROKEN, START + SECOND)
    world.now += SECOND - 1
    world.fire(node)
    world.commit_all()
    assert world.running == []
    world.now += 1
    world.fire(node)
    world.commit_all()
    assert world.running == [RunActivity("a", FIRST, 0, 2, "act", ONE, 9)]
    assert arrivals(world) == ()


def test_a_late_result_of_an_earlier_attempt_is_dropped():
    world = running(RETRY)
    first = run_of(world, 0)
    world.activity_ended(first, BROKEN)
    world.activity_ended(first, TWO)
    assert arrivals(world) == (), "no attempt is running at present"
    world.now += SECOND
    world.fire(world.nodes[0])
    world.activity_ended(first, TWO)
    assert arrivals(world) == ()


def test_a_result_of_an_attempt_that_has_not_started_is_dropped():
    # A speculative one may have, under an owner whose record of it was lost.
    world = running(RETRY)
    run = run_of(world, 0)
    world.activity_ended(run, BROKEN)
    world.activity_ended(msgspec.structs.replace(run, attempt=2), TWO)
    assert arrivals(world) == ()


def test_the_last_attempt_decides():
    world = running(RETRY)
    for _ in range(3):
        world.activity_ended(run_of(world, 0), BROKEN)
        world.now += 10 * SECOND
        world.fire(world.nodes[0])
        world.commit_all()
    assert arrivals(world) == (h.TaskFailed(0, START + 20 * SECOND, BROKEN),)


def test_a_cancelled_activity_is_told_and_its_result_dropped():
    world = running()
    ask(world, r.Raise("go"), 2)
    turn(world, h.TaskCanceled(0))
    assert world.canceled == [CancelActivity("a", FIRST, 0)]
    world.activity_ended(run_of(world, 0), TWO)
    assert arrivals(world) == ()


def test_cancelling_what_is_over_changes_nothing():
    world = running()
    world.activity_ended(run_of(world, 0), TWO)
    turn(world, h.TaskCanceled(0), h.TimerCanceled(7))
    assert world.canceled == []


def test_a_new_owner_runs_again_what_has_no_outcome():
    world = running(RETRY)
    (run,) = world.running
    world.crash(world.nodes[0])
    assert world.running == [run]


def test_a_new_owner_waits_for_the_next_attempt_as_the_old_one_would_have():
    world = running(RETRY)
    node = world.nodes[0]
    world.activity_ended(run_of(world, 0), BROKEN)
    world.commit_all()
    node.write_rows()
    world.crash(node)
    assert world.running == []
    world.now += SECOND
    world.fire(node)
    world.commit_all()
    assert [run.attempt for run in world.running] == [2]


# -- time for all attempts, and what they tell --------------------------------------------------

LIMITED = h.Retry(max_attempts=9, first_interval=SECOND, backoff=1.0, total=5 * SECOND)
TOO_LATE = h.Failure(type="TimeoutError", message="all attempts together did not end within 5 s")


def test_an_attempt_that_runs_when_the_time_for_all_is_over_is_cancelled():
    world = running(LIMITED)
    run = run_of(world, 0)
    world.now += 5 * SECOND
    world.fire(world.nodes[0])
    world.commit_all()
    assert world.canceled == [CancelActivity("a", FIRST, 0)]
    world.activity_ended(run, TWO)
    assert arrivals(world) == (h.TaskFailed(0, START + 5 * SECOND, TOO_LATE),)


def test_a_time_for_all_attempts_without_end_ends_when_a_store_can_still_say():
    world = running(msgspec.structs.replace(LIMITED, total=2**70))
    assert world.instance("a").next_due == DUE_MAX


def test_no_attempt_starts_after_the_time_for_all():
    world = running(LIMITED)
    world.now += 4 * SECOND
    world.activity_ended(run_of(world, 0), BROKEN)
    assert arrivals(world) == (h.TaskFailed(0, START + 4 * SECOND, BROKEN),)


def test_a_new_owner_keeps_the_time_for_all_attempts():
    world = running(LIMITED)
    node = world.nodes[0]
    world.activity_ended(run_of(world, 0), BROKEN)
    world.commit_all()
    node.write_rows()
    world.crash(node)
    world.now += 6 * SECOND
    world.fire(node)
    assert arrivals(world) == (h.TaskFailed(0, START + 6 * SECOND, TOO_LATE),)


def test_what_comes_in_time_ends_the_time_for_all():
    world = running(LIMITED)
    world.activity_ended(run_of(world, 0), TWO)
    assert arrivals(world) == (h.TaskCompleted(0, START, TWO),)
    world.commit_all()
    before = len(world.nodes[0].journal)
    world.now += 10 * SECOND
    world.fire(world.nodes[0])
    world.commit_all()
    assert len(world.nodes[0].journal) == before


def test_the_next_attempt_knows_what_the_last_one_told():
    world = running(RETRY)
    node = world.nodes[0]
    told = msgspec.structs.replace(BROKEN, heartbeat=THREE)
    world.activity_ended(run_of(world, 0), told)
    world.commit_all()
    world.crash(node)
    world.now += SECOND
    world.fire(node)
    world.commit_all()
    (run,) = [run for run in world.running if run.attempt == 2]
    assert run == RunActivity("a", FIRST, 0, 2, "act", ONE, 9, None, THREE)


# -- timers ------------------------------------------------------------------------------------


def timing(*delays_s: int) -> World:
    """Return a world in which instance ``a`` has timers."""
    world = World()
    start(world)
    timers = [h.TimerCreated(n, START + s * SECOND) for n, s in enumerate(delays_s)]
    turn(world, *timers)
    return world


def test_a_timer_fires_when_it_is_due_and_not_before():
    world = timing(5)
    world.now += 5 * SECOND - 1
    world.fire(world.nodes[0])
    assert arrivals(world) == ()
    world.now += 1
    world.fire(world.nodes[0])
    assert arrivals(world) == (h.TimerFired(0, START + 5 * SECOND),)


def test_overdue_timers_fire_in_order_of_their_times():
    world = timing(3, 1, 2)
    world.now += 10 * SECOND
    world.fire(world.nodes[0])
    assert [each.task_id for each in arrivals(world) if isinstance(each, h.TimerFired)] == [1, 2, 0]
    world.commit_all()
    assert world.nodes[0].entries()[-1] == e.Fired(world.now, "a", (1, 2, 0))


def test_no_more_timers_fire_at_once_than_allowed():
    world = timing(1, 2, 3)
    world.now += 10 * SECOND
    world.nodes[0].core.fire(world.now, limit=2)
    assert len(arrivals(world)) == 2


def test_a_cancelled_timer_does_not_fire():
    world = timing(5)
    ask(world, r.Raise("go"), 2)
    turn(world, h.TimerCanceled(0))
    before = len(world.nodes[0].journal)
    world.now += 10 * SECOND
    world.fire(world.nodes[0])
    world.commit_all()
    assert arrivals(world) == ()
    assert len(world.nodes[0].journal) == before


@pytest.mark.parametrize("outcome", [Completed(), Continued(TWO)])
def test_a_timer_ends_with_its_execution(outcome: Completed | Continued):
    world = timing(5)
    ask(world, r.Raise("go"), 2)
    turn(world, outcome=outcome)
    world.now += 10 * SECOND
    world.fire(world.nodes[0])
    assert arrivals(world) == ()


def test_the_index_of_cancelled_timers_is_thinned_out():
    world = timing(*range(10, 2000))
    ask(world, r.Raise("go"), 2)
    turn(world, *[h.TimerCanceled(n) for n in range(1, 1990)])
    core = world.nodes[0].core
    core.compact_timers()
    assert len(core.timers) == 1
    assert core.timers.next_due() == START + 10 * SECOND


def test_a_payload_is_kept_as_it_came():
    world = running()
    odd = Raw(b'{"a" : 1.00, "a":2,"\\u0000":[ ]}')
    world.activity_ended(run_of(world, 0), odd)
    world.commit_all()
    world.crash(world.nodes[0])
    assert arrivals(world) == (h.TaskCompleted(0, START, odd),)
