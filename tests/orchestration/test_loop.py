"""Every asyncio primitive works in an orchestrator, durably and in a determined order."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import TaskCanceled, TaskScheduled, TimerCanceled, TimerCreated
from shardrt.orchestration.loop import FIRE_AT_MAX
from tests.orchestration.harness import SECOND, START, failure_in, result_of, started

if TYPE_CHECKING:
    from shardrt.orchestration.context import OrchestrationContext


def timer(task_id: int, seconds: float) -> TimerCreated:
    return TimerCreated(task_id, START + round(seconds * SECOND))


def test_sleep_is_a_durable_timer():
    async def body(ctx: OrchestrationContext) -> str:
        return await asyncio.sleep(86400, "rested")

    instance, step = started(body)
    assert step.actions == (timer(1, 86400),)
    step = instance.fire(1)
    assert (result_of(step), step.actions) == ("rested", ())


def test_sleep_of_zero_needs_no_timer():
    async def body(ctx: OrchestrationContext) -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        return "on"

    _, step = started(body)
    assert (result_of(step), step.actions) == ("on", ())


def test_time_is_the_time_of_the_turn():
    async def body(ctx: OrchestrationContext) -> list[float]:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(1.5)
        return [before, loop.time()]

    instance, _ = started(body)
    assert result_of(instance.fire(1)) == [START / SECOND, START / SECOND + 1.5]


def test_a_timer_beyond_all_time_is_far_away():
    async def body(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(math.inf)

    _, step = started(body)
    assert step.actions == (TimerCreated(1, FIRE_AT_MAX),)


def test_callbacks_run_in_order_and_can_be_cancelled():
    async def body(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(seen.append, "soon")
        loop.call_soon(seen.append, "never").cancel()
        loop.call_later(0, seen.append, "at once")
        handle = loop.call_at(loop.time() - 1, seen.append, "past")
        assert not handle.cancelled()
        cancelled = loop.call_later(5, seen.append, "never")
        cancelled.cancel()
        cancelled.cancel()
        assert cancelled.cancelled()
        later = loop.call_later(3, seen.append, "later")
        assert later.when() == loop.time() + 3
        await asyncio.sleep(10)
        return seen

    instance, step = started(body)
    assert step.actions == (timer(1, 5), TimerCanceled(1), timer(2, 3), timer(3, 10))
    instance.fire(2)
    assert result_of(instance.fire(3)) == ["soon", "at once", "past", "later"]


def test_gather_keeps_the_order_of_the_calls():
    async def body(ctx: OrchestrationContext) -> list[str]:
        return list(await asyncio.gather(*[ctx.call_activity("a", n) for n in range(3)]))

    instance, step = started(body)
    assert [action.task_id for action in step.actions] == [1, 2, 3]
    instance.run(instance.completed(3, "z"), instance.completed(1, "x"))
    assert result_of(instance.complete(2, "y")) == ["x", "y", "z"]


def test_gather_of_nothing_is_nothing():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        return list(await asyncio.gather())

    _, step = started(body)
    assert result_of(step) == []


def test_timeout_cancels_what_it_waits_for():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(60):
                await ctx.call_activity("slow")
        except TimeoutError:
            return "too late"
        return "in time"

    instance, step = started(body)
    assert isinstance(step.actions[1], TaskScheduled)
    step = instance.fire(1)
    assert (result_of(step), step.actions) == ("too late", (TaskCanceled(2),))


def test_timeout_in_time_cancels_its_timer():
    async def body(ctx: OrchestrationContext) -> str:
        async with asyncio.timeout(60):
            return str(await ctx.call_activity("quick"))

    instance, _ = started(body)
    step = instance.complete(2, "done")
    assert (result_of(step), step.actions) == ("done", (TimerCanceled(1),))


def test_timeout_can_be_due_already():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(0):
                await ctx.call_activity("slow")
        except TimeoutError:
            return "too late"
        return "in time"

    _, step = started(body)
    assert result_of(step) == "too late"


@pytest.mark.parametrize(("first", "expected"), [("timer", "late"), ("result", "r")])
def test_wait_for_decides_a_race_by_order_of_arrival(first: str, expected: str):
    async def body(ctx: OrchestrationContext) -> str:
        try:
            return str(await asyncio.wait_for(ctx.call_activity("a"), 60))
        except TimeoutError:
            return "late"

    instance, step = started(body)
    tasks = {type(action): action.task_id for action in step.actions}
    arrivals = [
        instance.fired(tasks[TimerCreated]),
        instance.completed(tasks[TaskScheduled], "r"),
    ]
    step = instance.run(*(arrivals if first == "timer" else reversed(arrivals)))
    assert result_of(step) == expected


def test_task_group_cancels_the_others_when_one_fails():
    async def body(ctx: OrchestrationContext) -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                for n in range(3):
                    group.create_task(call(ctx, n))
        except ExceptionGroup as errors:
            return [type(error).__name__ for error in errors.exceptions]
        return []

    async def call(ctx: OrchestrationContext, n: int) -> None:
        await ctx.call_activity("a", n)

    instance, step = started(body)
    assert [action.task_id for action in step.actions] == [1, 2, 3]
    step = instance.fail(2)
    assert step.actions == (TaskCanceled(1), TaskCanceled(3))
    assert result_of(step) == ["ActivityFailed"]


def test_wait_returns_who_is_done_first():
    async def body(ctx: OrchestrationContext) -> list[list[str]]:
        calls = {ctx.call_activity(name): name for name in "abcdefgh"}
        done, rest = await asyncio.wait(set(calls), return_when=asyncio.FIRST_COMPLETED)
        names = [[calls[future] for future in each] for each in (done, rest)]
        for future in rest:
            future.cancel()
        return names

    instance, _ = started(body)
    step = instance.complete(3)
    assert step.actions == tuple(TaskCanceled(n) for n in (1, 2, 4, 5, 6, 7, 8))
    assert result_of(step) == [["c"], ["a", "b", "d", "e", "f", "g", "h"]]


def test_as_completed_starts_coroutines_in_order():
    async def body(ctx: OrchestrationContext) -> list[int]:
        calls = (call(ctx, n) for n in range(20))
        return [await each for each in asyncio.as_completed(calls, timeout=60)]

    async def call(ctx: OrchestrationContext, n: int) -> int:
        return int(await ctx.call_activity("a", n))

    instance, step = started(body)
    scheduled = [action.input for action in step.actions if isinstance(action, TaskScheduled)]
    assert [int(bytes(memoryview(each))) for each in scheduled] == list(range(20))
    ids = sorted(instance.pending, reverse=True)
    timers = [each for each in ids if isinstance(instance.pending[each], TimerCreated)]
    calls = [each for each in ids if each not in timers]
    step = instance.run(*[instance.completed(each, each) for each in calls])
    assert (result_of(step), step.actions) == (calls, (TimerCanceled(timers[0]),))


def test_the_original_as_completed_is_refused_for_coroutines():
    original: Any = asyncio.as_completed.__wrapped__  # type: ignore[attr-defined]

    async def body(ctx: OrchestrationContext) -> Any:
        coroutine = asyncio.sleep(1)
        try:
            return [await each for each in original([coroutine])]
        finally:
            coroutine.close()

    _, step = started(body)
    assert "no determined order" in failure_in(step).message


def test_outside_as_completed_is_as_it_was():
    async def host() -> None:
        assert [await each for each in asyncio.as_completed([asyncio.sleep(0, "x")])] == ["x"]
        with pytest.raises(TypeError):
            list(asyncio.as_completed(asyncio.Future()))

    asyncio.run(host())


def test_queue_event_lock_semaphore_condition_work():
    async def body(ctx: OrchestrationContext) -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        ready, lock = asyncio.Event(), asyncio.Lock()
        permits, changed = asyncio.Semaphore(2), asyncio.Condition()
        seen: list[int] = []

        async def produce(n: int) -> None:
            await ready.wait()
            async with permits, lock:
                await queue.put(int(await ctx.call_activity("a", n)))

        async def consume() -> None:
            while len(seen) < 3:
                seen.append(await queue.get())
            async with changed:
                changed.notify_all()

        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            for n in range(3):
                group.create_task(produce(n))
            ready.set()
            async with changed:
                await changed.wait()
        return seen

    instance, step = started(body)
    for n in range(1, 4):
        assert [action.task_id for action in step.actions] == [n]
        step = instance.complete(n, 10 * n)
    assert result_of(step) == [10, 20, 30]


async def two_calls(ctx: OrchestrationContext) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        begin: Any = group.create_task  # whose type asks for a coroutine
        calls = [begin(ctx.call_activity(name), name=name) for name in "ab"]
    return [call.get_name() + call.result() for call in calls]


def test_a_task_group_takes_calls_as_they_are():
    instance, step = started(two_calls)
    assert [action.task_id for action in step.actions] == [1, 2]
    assert instance.complete(2, "2").outcome is None
    assert result_of(instance.complete(1, "1")) == ["a1", "b2"]


def test_a_call_of_a_task_group_that_fails_is_given_up():
    instance, _ = started(two_calls)
    step = instance.fail(1)
    assert step.actions == (TaskCanceled(2),)
    assert failure_in(step).message.endswith(
        "(1 sub-exception): ActivityFailed: activity 'a' (task 1) failed: ValueError: no"
    )


def test_a_call_is_given_up_if_its_task_is_cancelled_before_it_begins():
    async def body(ctx: OrchestrationContext) -> None:
        call: Any = ctx.call_activity("a")
        asyncio.create_task(call).cancel()
        await ctx.wait_for_event("end")

    _, step = started(body)
    assert [type(action) for action in step.actions] == [TaskScheduled, TaskCanceled]


def test_shield_keeps_a_call_going():
    async def body(ctx: OrchestrationContext) -> str:
        call = ctx.call_activity("a")
        try:
            await asyncio.wait_for(asyncio.shield(call), 5)
        except TimeoutError:
            return "later: " + str(await call)
        return "at once"

    instance, step = started(body)
    step = instance.fire(next(a.task_id for a in step.actions if isinstance(a, TimerCreated)))
    assert step.actions == ()
    assert result_of(instance.complete(1, "x")) == "later: x"


def test_a_cancelled_task_can_clean_up():
    async def body(ctx: OrchestrationContext) -> str:
        task = asyncio.create_task(work(ctx), name="worker")
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return task.get_name()
        return "not cancelled"

    async def work(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("work")
        finally:
            await ctx.call_activity("clean up")

    instance, step = started(body)
    assert [type(action) for action in step.actions] == [TaskScheduled, TaskCanceled, TaskScheduled]
    assert result_of(instance.complete(2)) == "worker"


def test_tasks_are_named_and_hash_by_their_order():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        async def nothing() -> None:
            pass

        tasks = [asyncio.create_task(nothing()) for _ in range(100)]
        futures = [asyncio.get_running_loop().create_future() for _ in range(5)]
        assert tasks[0] != tasks[1]
        assert futures[0] != futures[1]
        assert sorted(map(hash, tasks)) == list(map(hash, tasks))
        assert sorted(map(hash, futures)) == list(map(hash, futures))
        assert asyncio.current_task() in asyncio.all_tasks()
        await asyncio.gather(*tasks)
        return [tasks[0].get_name(), hash(tasks[0])]

    _, step = started(body)
    assert result_of(step) == ["Task-2", 2]


def test_many_tasks_one_after_the_other_are_not_kept():
    async def body(ctx: OrchestrationContext) -> int:
        async def nothing() -> None:
            pass

        for _ in range(500):
            await asyncio.create_task(nothing())
        loop: Any = asyncio.get_running_loop()
        return len(loop.tasks)

    _, step = started(body)
    assert 0 < result_of(step) < 50
