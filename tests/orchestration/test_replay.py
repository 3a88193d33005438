"""Rebuilding from history, and what happens when code and history differ."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import (
    EventSent,
    ExecutionResumed,
    ExecutionSuspended,
    SubOrchestrationInstanceCreated,
    TaskCanceled,
    TaskScheduled,
    TimerCreated,
)
from shardrt.orchestration.app import App
from shardrt.orchestration.executor import Executor
from shardrt.orchestration.ledger import describe
from shardrt.orchestration.replay import past_turns
from tests.orchestration.harness import NULL, START, Instance, reason_of, result_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.orchestration.context import OrchestrationContext

    Body = Callable[[OrchestrationContext], Awaitable[Any]]


def executor_of(body: Body) -> Executor:
    app = App()
    app.orchestrator(name="body")(body)  # type: ignore[type-var]
    return Executor(app)


def started(body: Body) -> Instance:
    instance = Instance(App(), "body", executor=executor_of(body))
    instance.run()
    return instance


def deploy(instance: Instance, body: Body) -> None:
    """Let other code go on with the instance."""
    instance.executor = executor_of(body)


async def charge_and_ship(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("charge")
    return str(await ctx.call_activity("ship"))


def test_a_replay_goes_on_where_the_code_was():
    instance = started(charge_and_ship)
    instance.complete(1)
    step = instance.run(instance.completed(2, "shipped"), replay=True)
    assert (result_of(step), step.turn) == ("shipped", 2)


def test_an_execution_is_revived_without_a_turn():
    instance = started(charge_and_ship)
    instance.complete(1)
    executor = instance.executor
    for _ in range(2):  # a resident gives way
        assert executor.revive(instance.item(), instance.history)
        assert len(executor) == 1
    assert executor.holds("i-1", instance.execution_id, 2)
    assert result_of(instance.run(instance.completed(2, "shipped"))) == "shipped"


def test_code_that_does_not_fit_is_not_revived():
    async def ship(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("ship")

    instance = started(charge_and_ship)
    deploy(instance, ship)
    assert not instance.executor.revive(instance.item(), instance.history)
    assert len(instance.executor) == 0


def test_the_history_is_needed_if_the_execution_is_not_resident():
    instance = started(charge_and_ship)
    instance.executor.drop("i-1")
    with pytest.raises(ValueError, match="'i-1' is not resident at turn 1"):
        instance.executor.run(instance.item())


def test_a_history_of_other_length_parks_the_instance():
    instance = started(charge_and_ship)
    instance.executor.drop("i-1")
    instance.history = instance.history[:1]
    assert reason_of(instance.run()) == "history holds 0 turns, but the next one is 1"


def test_what_the_code_does_not_see_is_left_out_of_a_replay():
    instance = started(charge_and_ship)
    instance.history[1:1] = [ExecutionSuspended(START), ExecutionResumed(START)]
    turns = past_turns(instance.history)
    assert [(turn.at, turn.arrivals, len(turn.actions)) for turn in turns] == [(START, [], 1)]


def test_another_name_is_told_with_both_sides_and_the_line():
    async def renamed(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("charge")
        return str(await ctx.call_activity("send"))

    instance = started(charge_and_ship)
    instance.complete(1)
    deploy(instance, renamed)
    reason = reason_of(instance.complete(2))
    assert reason.startswith(
        "not deterministic: history says TaskScheduled #2 'ship', "
        "the code asked for TaskScheduled #2 'send' ("
    )
    assert "test_replay.py:" in reason
    assert reason.endswith("renamed)")
    assert len(instance.executor) == 0


def test_the_instance_goes_on_once_fitting_code_is_deployed():
    async def other(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(1)

    instance = started(charge_and_ship)
    deploy(instance, other)
    reason = reason_of(instance.complete(1))
    assert "TimerCreated #1 (" in reason
    assert reason.endswith("other)")
    deploy(instance, charge_and_ship)
    instance.complete(1)
    assert result_of(instance.complete(2, "x")) == "x"


def test_swallowing_everything_does_not_hide_a_difference():
    async def swallowing(ctx: OrchestrationContext) -> str:
        for name in ("a", "b", "c"):
            try:
                await ctx.call_activity(name)
            except BaseException:  # noqa: BLE001
                continue
        return "fine"

    instance = started(charge_and_ship)
    deploy(instance, swallowing)
    assert "'a'" in reason_of(instance.complete(1))


def test_code_that_asks_for_more_is_told():
    async def more(ctx: OrchestrationContext) -> None:
        ctx.send_event("other", "hello")
        await ctx.wait_for_event("go")

    async def less(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("go")

    instance = started(less)
    deploy(instance, more)
    reason = reason_of(instance.raise_event("go"))
    expected = "history says nothing, the code asked for EventSent #1 'hello' for 'other' ("
    assert expected in reason


def test_code_that_asks_for_less_is_told_with_where_it_waits():
    async def less(ctx: OrchestrationContext) -> None:
        await inner(ctx)

    async def inner(ctx: OrchestrationContext) -> None:
        await asyncio.wait_for(ctx.wait_for_event("go"), None)

    instance = started(charge_and_ship)
    deploy(instance, less)
    reason = reason_of(instance.complete(1))
    assert "history says TaskScheduled #1 'charge', the code asked for nothing more" in reason
    assert "inner)" in reason


@pytest.mark.parametrize("raises", [False, True])
def test_code_that_ends_too_early_is_told(raises: bool):
    async def early(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("charge")
        if raises:
            raise ValueError("early")
        return "early"

    instance = started(charge_and_ship)
    instance.complete(1)
    deploy(instance, early)
    reason = reason_of(instance.complete(2))
    assert "history says TaskScheduled #2 'ship', the code asked for nothing more" in reason
    assert ("ended with ValueError: early" if raises else "the code ended") in reason


def test_code_that_ends_while_history_goes_on_is_told():
    async def long(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("a")
        await ctx.wait_for_event("b")
        await ctx.wait_for_event("c")

    async def short(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("a")

    instance = started(long)
    instance.raise_event("a")
    instance.raise_event("b")
    deploy(instance, short)
    reason = reason_of(instance.raise_event("c"))
    assert reason == "not deterministic: history goes on, but the code ended"


def test_an_input_that_does_not_fit_new_code_any_more_is_told():
    async def typed(ctx: OrchestrationContext, number: int) -> None:
        await ctx.call_activity("charge", number)

    instance = started(charge_and_ship)
    app = App()
    app.orchestrator(name="body")(typed)
    instance.executor = Executor(app)
    assert "InputInvalid" in reason_of(instance.complete(1))


def test_a_timer_made_in_a_callback_has_no_line():
    def later() -> None:
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_later, 5, print)

    async def with_timer(ctx: OrchestrationContext) -> None:
        later()
        await ctx.wait_for_event("go")

    async def without(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("go")

    instance = started(without)
    deploy(instance, with_timer)
    assert reason_of(instance.raise_event("go")).endswith("the code asked for TimerCreated #1")


def test_a_runaway_in_a_replay_is_a_difference_too(monkeypatch: pytest.MonkeyPatch):
    async def spin(ctx: OrchestrationContext) -> None:
        for _ in iter(int, 1):
            await asyncio.sleep(0)

    instance = started(charge_and_ship)
    deploy(instance, spin)
    monkeypatch.setattr("shardrt.orchestration.loop.TURN_CALLBACKS_MAX", 100)
    assert "without waiting" in reason_of(instance.complete(1))


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (None, "nothing"),
        (TaskScheduled(1, "a", NULL), "TaskScheduled #1 'a'"),
        (TaskCanceled(2), "TaskCanceled #2"),
        (TimerCreated(3, START), "TimerCreated #3"),
        (EventSent(4, "other", "x", NULL), "EventSent #4 'x' for 'other'"),
        (
            SubOrchestrationInstanceCreated(5, "c", "ship", NULL),
            "SubOrchestrationInstanceCreated #5 'ship' for 'c'",
        ),
    ],
)
def test_an_action_in_words(action: Any, text: str):
    assert describe(action) == text


def test_another_target_of_a_child_or_event_is_a_difference():
    def sending(target: str) -> Body:
        async def body(ctx: OrchestrationContext) -> None:
            ctx.send_event(target, "x")
            await ctx.call_sub_orchestrator("ship", instance_id="c")

        return body

    instance = started(sending("a"))
    deploy(instance, sending("b"))
    assert "'x' for 'a', the code asked for EventSent #1 'x' for 'b'" in reason_of(
        instance.complete(2)
    )
