"""A family over two hosts, one of which is to be killed in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opentelemetry import trace

from shardrt import App, OrchestrationContext

app = App()
tracer = trace.get_tracer("app")


@app.activity
async def work(number: int) -> int:
    with tracer.start_as_current_span("in the loop"):
        return number + 1


@app.activity(executor="process")
def crunch(number: int) -> int:
    with tracer.start_as_current_span("in a worker"):
        return number + 1


@app.activity
async def linger(path: str) -> int:
    """Leave a mark. The first attempt never ends."""
    attempts = mark(Path(path))
    if attempts == 1:
        await asyncio.Event().wait()
    return attempts


def mark(path: Path) -> int:
    with path.open("a") as marks:
        marks.write("x")
    return len(path.read_text())


@app.orchestrator
async def child(ctx: OrchestrationContext, path: str) -> int:
    await ctx.call_activity(work, 1)
    return await ctx.call_activity(linger, path)


@app.orchestrator
async def parent(ctx: OrchestrationContext, given: list[str]) -> int:
    child_id, path = given
    number = await ctx.call_activity(work, 0)
    number = await ctx.call_activity(crunch, number)
    return number + await ctx.call_sub_orchestrator(child, path, instance_id=child_id)
