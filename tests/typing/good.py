"""User code that a strict type checker accepts, with the types it infers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, assert_type

from shardrt import (
    ActivityContext,
    App,
    Client,
    OrchestrationContext,
    OrchestrationHandle,
    RetryPolicy,
    SyncClient,
)

T = TypeVar("T")
E = TypeVar("E")
app = App()


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Result(Generic[T, E]):
    value: T | None = None
    error: E | None = None


@app.activity
async def charge(order: Order) -> Result[int, str]:
    return Result(value=order.cents)


@app.activity(retry=RetryPolicy(max_attempts=5), timeout=timedelta(seconds=30))
def render(ctx: ActivityContext, text: str) -> bytes:
    return text.encode()


@app.orchestrator
async def ship(ctx: OrchestrationContext, order: Order) -> bool:
    return await ctx.wait_for_event("shipped", bool, timeout=3600)


@app.orchestrator(version="2")
async def process(ctx: OrchestrationContext, order: Order) -> str:
    receipt = assert_type(await ctx.call_activity(charge, order), Result[int, str])
    both = await asyncio.gather(
        ctx.call_activity(render, "a"), ctx.call_sub_orchestrator(ship, order)
    )
    assert_type(both, tuple[bytes, bool])
    assert_type(await ctx.call_activity("elsewhere", result_type=Order), Order)
    assert_type(await ctx.call_activity("elsewhere"), Any)
    if assert_type(ctx.patched("tax"), bool):
        ctx.deprecate_patch("other")
    with ctx.unguarded():
        ctx.logger.info("%s", receipt.value)
    ctx.continue_as_new(order, version="3")
    return ""


@app.orchestrator
async def nightly(ctx: OrchestrationContext) -> dict[str, int]:
    return {}


async def use(client: Client) -> None:
    handle = await client.start(process, Order("a", 5), instance_id="a", tags={"k": "v"})
    assert_type(handle, OrchestrationHandle[str])
    assert_type(await handle.result(timeout=5), str)
    assert_type(await (await client.start(nightly)).result(), dict[str, int])
    assert_type(await (await client.start("process", 3)).result(), Any)
    assert_type(await client.handle("a", process).result(), str)
    assert_type(await client.handle("a").result(type=Order), Order)
    assert_type(await client.execute(process, Order("a", 5), instance_id="a", timeout=5), str)
    assert_type(await client.execute(nightly), dict[str, int])
    assert_type(await client.execute("process", 3, on_conflict="return"), Any)
    plain: OrchestrationHandle = client.handle("a")
    assert_type(await plain.result(), Any)


def use_blocking(client: SyncClient) -> None:
    assert_type(client.start(process, Order("a", 5)).result(timeout=5), str)
    assert_type(client.start(nightly, start_at=timedelta(hours=1)).result(), dict[str, int])
    assert_type(client.execute(process, Order("a", 5), tags={"k": "v"}, timeout=5), str)
    assert_type(client.execute(nightly, start_at=timedelta(hours=1)), dict[str, int])
    assert_type(client.execute("nightly"), Any)
    assert_type(client.handle("a", nightly).result(), dict[str, int])


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


app.codec(Point, encode=lambda point: point.x, decode=Point)
