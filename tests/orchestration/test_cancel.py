"""What code sees of a cancellation from outside: asyncio's, in its place in history."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import (
    CancelRequested,
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    OrchestratorStarted,
    Status,
    SubOrchestrationInstanceCreated,
    TaskCanceled,
    TaskScheduled,
    TimerCanceled,
    TimerCreated,
)
from shardrt.core.work import Canceled, Step
from shardrt.errors import NonDeterminism
from shardrt.orchestration.app import App
from tests.orchestration.harness import (
    START,
    Instance,
    continued,
    failure_in,
    raw,
    result_of,
    started,
)

if TYPE_CHECKING:
    from shardrt.core.history import HistoryEvent
    from shardrt.orchestration.context import OrchestrationContext

Body = "Callable[[OrchestrationContext], Awaitable[Any]]"
CANCEL = CancelRequested(START, "enough")


def reason_in(step: Step) -> str:
    assert isinstance(step.outcome, Canceled), step.outcome
    return step.outcome.reason


def names(step: Step) -> list[str]:
    """Return what a turn asked for."""
    return [getattr(each, "name", type(each).__name__) for each in step.actions]


@pytest.mark.parametrize("replay", [False, True], ids=["resident", "replayed"])
def test_it_cleans_up_with_all_that_an_orchestration_can_do(*, replay: bool):
    seen: list[str] = []

    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("book", 1)
            await ctx.call_activity("pay", 1)
        except asyncio.CancelledError as error:
            seen.append(str(error))
            await asyncio.sleep(5)
            await ctx.call_activity("unbook", 1)
            raise

    instance, _ = started(body)
    instance.complete(1)
    step = instance.run(CANCEL, replay=replay)
    assert step.actions[0] == TaskCanceled(2)
    step = instance.run(instance.fired(3), replay=replay)
    assert names(step) == ["unbook"]
    step = instance.run(instance.completed(4), replay=replay)
    assert reason_in(step) == "enough"
    assert set(seen) == {"enough"}


def test_without_a_handler_it_ends():
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("never")

    instance, _ = started(body)
    assert reason_in(instance.run(CancelRequested(START))) == ""


def test_it_may_complete_or_fail_instead():
    async def returns(ctx: OrchestrationContext) -> str:
        try:
            await ctx.wait_for_event("never")
        except asyncio.CancelledError:
            return "as far as I got"
        return ""

    async def raises(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("never")
        finally:
            raise ValueError("no")

    instance, _ = started(returns)
    assert result_of(instance.run(CANCEL)) == "as far as I got"
    instance, _ = started(raises)
    assert failure_in(instance.run(CANCEL)).type == "ValueError"


def test_it_may_go_on_with_asyncio_as_usual():
    async def body(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.wait_for_event("never")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            assert (task.cancelling(), task.uncancel()) == (1, 0)
        async with asyncio.timeout(60):
            return await ctx.call_activity("more")

    instance, _ = started(body)
    step = instance.run(CANCEL)
    assert names(step)[-1] == "more"
    assert result_of(instance.complete(2, "done")) == "done"


def test_what_it_awaits_is_cancelled_and_what_is_shielded_is_not():
    async def body(ctx: OrchestrationContext) -> Any:
        apart = asyncio.ensure_future(ctx.call_activity("apart"))
        kept = asyncio.ensure_future(ctx.call_activity("kept"))
        try:
            await asyncio.gather(asyncio.shield(kept), ctx.call_activity("lost"), asyncio.sleep(9))
        except asyncio.CancelledError:
            return [await kept, await apart]

    instance, _ = started(body)
    step = instance.run(CANCEL)
    given_up = [each for each in step.actions if isinstance(each, (TaskCanceled, TimerCanceled))]
    assert [each.task_id for each in given_up] == [3, 4]
    instance.complete(2, "kept")
    assert result_of(instance.complete(1, "apart")) == ["kept", "apart"]


@pytest.mark.parametrize("replay", [False, True], ids=["resident", "replayed"])
def test_only_a_child_that_is_given_up_for_it_may_clean_up(*, replay: bool):
    async def body(ctx: OrchestrationContext) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await ctx.call_sub_orchestrator("early")
        try:
            await asyncio.gather(ctx.call_sub_orchestrator("kid"), ctx.call_activity("act"))
        finally:
            late = asyncio.ensure_future(ctx.call_sub_orchestrator("late"))
            await ctx.wait_for_event("on")
            late.cancel()

    instance, first = started(body)
    (timer,) = [each.task_id for each in first.actions if isinstance(each, TimerCreated)]
    fired = instance.fired(timer)
    step = instance.run(fired, CANCEL, EventRaised(instance.now, "on", raw(1)), replay=replay)
    given_up = [each for each in step.actions if isinstance(each, TaskCanceled)]
    called = {
        each.task_id: each.name
        for each in (*first.actions, *step.actions)
        if isinstance(each, (TaskScheduled, SubOrchestrationInstanceCreated))
    }
    assert {called[each.task_id]: each.cooperative for each in given_up} == {
        "early": False,
        "kid": True,
        "act": False,
        "late": False,
    }


def test_tasks_of_a_group_clean_up_too():
    async def part(ctx: OrchestrationContext, name: str) -> None:
        try:
            await ctx.wait_for_event(name)
        finally:
            await ctx.call_activity(f"undo {name}")

    async def body(ctx: OrchestrationContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(part(ctx, "one"))
            group.create_task(part(ctx, "two"))

    instance, _ = started(body)
    step = instance.run(CANCEL)
    assert names(step) == ["undo one", "undo two"]
    instance.complete(1)
    assert reason_in(instance.complete(2)) == "enough"


def test_a_section_gives_its_lock_back():
    async def body(ctx: OrchestrationContext) -> None:
        async with ctx.lock("@acc@a"):
            await ctx.call_entity("@acc@a", "get")

    instance, _ = started(body)
    instance.complete(1)
    step = instance.run(CANCEL)
    assert names(step) == ["TaskCanceled", "EntityUnlockSent"]
    assert reason_in(step) == "enough"


def test_what_comes_with_it_is_given_in_order():
    async def body(ctx: OrchestrationContext) -> list[str]:
        got = []
        try:
            while True:
                got.append(await ctx.wait_for_event("word", str))
        except asyncio.CancelledError:
            got.append("cancel")
            got.append(await ctx.wait_for_event("word", str))
        return got

    instance, _ = started(body)
    one, two = instance.raised("word", "one"), instance.raised("word", "two")
    assert result_of(instance.run(one, CANCEL, two)) == ["one", "cancel", "two"]


def test_it_comes_too_late_for_code_that_ends_in_the_same_turn():
    async def body(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("act")

    instance, _ = started(body)
    assert result_of(instance.run(instance.completed(1, "done"), CANCEL)) == "done"


@pytest.mark.parametrize("carries", [True, False])
def test_an_execution_that_continues_hands_on_what_it_has_not_seen(*, carries: bool):
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("act")
        ctx.continue_as_new(2, carry_events=carries)

    instance, _ = started(body)
    left = instance.raised("left")
    step = instance.run(instance.completed(1), left, CANCEL)
    assert continued(step).carried == ((left, CANCEL) if carries else (CANCEL,))


def test_the_first_turn_of_such_an_execution_runs_to_its_first_wait():
    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("act")
        except asyncio.CancelledError:
            await ctx.call_activity("undo")
            raise

    app = App()

    @app.orchestrator
    async def orchestrator(ctx: OrchestrationContext) -> Any:
        return await body(ctx)

    instance = Instance(app, "orchestrator")
    assert names(instance.run(CANCEL)) == ["act", "TaskCanceled", "undo"]
    assert reason_in(instance.run(instance.completed(2), replay=True)) == "enough"


def test_a_cancellation_by_the_code_itself_is_a_failure_as_ever():
    async def body(ctx: OrchestrationContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ctx.wait_for_event("never")

    _, step = started(body)
    assert failure_in(step).type == "CancelledError"


def test_histories_of_canceled_executions_are_retraced():
    app = App()

    @app.orchestrator
    async def patient(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("act")
        finally:
            await ctx.call_activity("undo")

    instance = Instance(app, "patient")
    instance.run()
    instance.run(CANCEL)
    assert reason_in(instance.complete(2)) == "enough"
    history = [*instance.history, ExecutionCompleted(START, Status.CANCELED)]
    instance.executor.retrace(instance.item(), history)
    completed = [*instance.history, ExecutionCompleted(START, Status.COMPLETED)]
    with pytest.raises(NonDeterminism, match="history ends Completed"):
        instance.executor.retrace(instance.item(), completed)
    without = [each for each in history if not isinstance(each, CancelRequested)]
    with pytest.raises(NonDeterminism):
        instance.executor.retrace(instance.item(), without)


def test_one_that_never_began_is_retraced_too():
    app = App()

    @app.orchestrator
    async def patient(ctx: OrchestrationContext) -> None:
        raise AssertionError

    instance = Instance(app, "patient")
    ended = ExecutionCompleted(START, Status.CANCELED)
    history: list[HistoryEvent] = [ExecutionStarted(START, "patient", raw(None)), CANCEL, ended]
    instance.executor.retrace(instance.item(), history)
    assert not any(isinstance(each, OrchestratorStarted) for each in history)
