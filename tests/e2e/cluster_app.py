"""What needs several partitions at once: children, events and entities anywhere."""

from __future__ import annotations

import asyncio
import contextlib

from shardrt import App, OrchestrationContext

app = App()


@app.activity
async def double(number: int) -> int:
    return 2 * number


@app.activity
async def nap(seconds: float) -> float:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    return seconds


@app.entity
class Counter:
    count: int = 0

    def add(self, number: int) -> int:
        self.count += number
        return self.count


@app.orchestrator
async def work(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, number)


@app.orchestrator
async def sleeper(ctx: OrchestrationContext, seconds: float) -> float:
    return await ctx.call_activity(nap, seconds)


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


@app.orchestrator
async def family(ctx: OrchestrationContext, partitions: int) -> int:
    """Have a child, and an entity, in every partition, and wake a waiter in each."""
    where = range(partitions)
    children = [
        ctx.call_sub_orchestrator(work, number, instance_id=f"{ctx.instance_id}-child!{number}")
        for number in where
    ]
    doubled = sum(await asyncio.gather(*children))
    for number in where:
        ctx.send_event(f"waiter!{number}", "go", f"on {number}")
    counters = [ctx.call_entity(f"@counter@c!{number}", Counter.add, 1) for number in where]
    return doubled + sum(await asyncio.gather(*counters))
