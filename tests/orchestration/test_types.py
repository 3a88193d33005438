"""What a type checker knows about user code. Checked by mypy; running it proves little."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_type

from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.app import App

if TYPE_CHECKING:
    from shardrt.orchestration.context import OrchestrationContext

app = App()


@dataclass
class Order:
    id: str


@app.activity
async def charge(order: Order) -> str:
    return order.id


@app.activity(name="render", timeout=30)
def render(ctx: ActivityContext, text: str) -> int:
    return len(text)


@app.activity
def reverse(text: str, ctx: ActivityContext) -> bytes:
    return text.encode()


@app.activity
async def alone(ctx: ActivityContext) -> list[int]:
    return []


@app.activity
def nothing() -> float:
    return 0.0


@app.orchestrator
async def child(ctx: OrchestrationContext, order: Order) -> dict[str, int]:
    return {}


@app.orchestrator(name="parent", version="1")
async def parent(ctx: OrchestrationContext, order: Order) -> str:
    call = ctx.call_activity(charge, order)
    await assert_type(call, asyncio.Future[str])
    assert_type(await ctx.call_activity(render, "a"), int)
    assert_type(await ctx.call_activity(reverse, "a"), bytes)
    assert_type(await ctx.call_activity(alone), list[int])
    assert_type(await ctx.call_activity(nothing), float)
    assert_type(await ctx.call_activity("name", 3), Any)
    assert_type(await ctx.call_activity("name", 3, result_type=int), int)
    assert_type(await ctx.call_sub_orchestrator(child, order), dict[str, int])
    assert_type(await ctx.call_sub_orchestrator("name", result_type=Order), Order)
    assert_type(await ctx.wait_for_event("x", bool), bool)
    assert_type(await ctx.wait_for_event("x"), Any)
    assert_type(ctx.get_input(Order), Order)
    both = await asyncio.gather(ctx.call_activity(render, "a"), ctx.call_activity(charge, order))
    assert_type(both, tuple[int, str])
    await ctx.call_activity(charge, "no order")  # type: ignore[arg-type]
    await ctx.call_sub_orchestrator(child, 3)  # type: ignore[arg-type]
    return ""


def test_decorated_functions_keep_their_types():
    assert assert_type(render(ActivityContext(), "abc"), int) == 3
    assert asyncio.run(charge(Order("x"))) == "x"
