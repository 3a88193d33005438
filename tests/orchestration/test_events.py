"""External events: buffered, first come first served, never swallowed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import TimerCanceled, TimerCreated
from shardrt.errors import InputInvalid
from tests.orchestration.harness import SECOND, START, result_of, started

if TYPE_CHECKING:
    from shardrt.orchestration.context import OrchestrationContext


def test_an_event_that_comes_before_the_wait_is_kept():
    async def body(ctx: OrchestrationContext) -> list[int]:
        await ctx.wait_for_event("go")
        return [await ctx.wait_for_event("x", int) for _ in range(3)]

    instance, _ = started(body)
    instance.run(instance.raised("x", 1), instance.raised("X", 2))
    instance.raise_event("Go")
    assert result_of(instance.raise_event("x", 3)) == [1, 2, 3]


def test_several_waiters_of_one_name_are_served_in_order():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        return list(await asyncio.gather(*[ctx.wait_for_event("x") for _ in range(3)]))

    instance, _ = started(body)
    instance.raise_event("x", "a")
    assert result_of(instance.run(instance.raised("x", "b"), instance.raised("x", None))) == [
        "a",
        "b",
        None,
    ]


def test_a_cancelled_waiter_does_not_swallow_an_event():
    async def body(ctx: OrchestrationContext) -> Any:
        first, second = ctx.wait_for_event("x"), ctx.wait_for_event("x")
        assert first.cancel()
        assert not first.cancel()
        return await second

    instance, _ = started(body)
    assert result_of(instance.raise_event("x", 1)) == 1


@pytest.mark.parametrize("order", ["timer first", "event first"])
def test_a_timeout_in_the_same_turn_does_not_swallow_an_event(order: str):
    async def body(ctx: OrchestrationContext) -> list[Any]:
        try:
            first = await asyncio.wait_for(ctx.wait_for_event("x"), 5)
        except TimeoutError:
            first = "late"
        return [first, await ctx.wait_for_event("x")]

    instance, step = started(body)
    (timer,) = (action for action in step.actions if isinstance(action, TimerCreated))
    arrivals = [instance.fired(timer.task_id), instance.raised("x", 1)]
    instance.run(*(arrivals if order == "timer first" else reversed(arrivals)))
    if order == "timer first":
        assert result_of(instance.steps[-1]) == ["late", 1]
    else:
        assert result_of(instance.raise_event("x", 2)) == [1, 2]


def test_a_wait_can_have_a_timeout():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.wait_for_event("x", timeout=5)
        except TimeoutError as error:
            return [str(error), await ctx.wait_for_event("x")]
        return []

    instance, step = started(body)
    assert step.actions == (TimerCreated(1, START + 5 * SECOND),)
    step = instance.fire(1)
    assert step.actions == ()
    assert result_of(instance.raise_event("x", 1)) == ["no event 'x' in time", 1]


def test_an_event_in_time_cancels_the_timer():
    async def body(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_event("x", timeout=5)

    instance, _ = started(body)
    step = instance.raise_event("x", 1)
    assert (result_of(step), step.actions) == (1, (TimerCanceled(1),))


def test_cancelling_a_wait_cancels_its_timer():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.wait_for_event("x", timeout=5).cancel()
        await ctx.wait_for_event("y")

    _, step = started(body)
    assert step.actions == (TimerCreated(1, START + 5 * SECOND), TimerCanceled(1))


def test_a_timeout_of_zero_takes_what_is_there():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        await ctx.wait_for_event("go")
        there = await ctx.wait_for_event("x", timeout=0)
        missing, cancelled = ctx.wait_for_event("x", timeout=0), ctx.wait_for_event("x", timeout=0)
        asyncio.Future.cancel(cancelled)
        results = await asyncio.gather(missing, cancelled, return_exceptions=True)
        return [there, *(type(each).__name__ for each in results)]

    instance, _ = started(body)
    instance.raise_event("x", 1)
    step = instance.raise_event("go")
    assert (result_of(step), step.actions) == ([1, "TimeoutError", "CancelledError"], ())


def test_an_event_that_does_not_fit_is_an_error_of_the_wait():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            await ctx.wait_for_event("x", int)
        except InputInvalid as error:
            return str(error)
        return ""

    instance, _ = started(body)
    step = instance.raise_event("x", "one")
    assert result_of(step) == "event 'x': Expected `int`, got `str`"


def test_waiting_again_and_again_leaves_nothing_behind():
    async def body(ctx: OrchestrationContext) -> dict[str, int]:
        for _ in range(200):
            ctx.wait_for_event("x").cancel()
        _kept = ctx.wait_for_event("x")
        mailbox = ctx._ledger.mailbox()
        return {name: len(waiters) for name, waiters in mailbox._waiters.items()}

    _, step = started(body)
    assert result_of(step) == {"x": 1}
