"""Many activities at once; their results come back in the order of the calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()


@app.activity(name="bench.name_of")
async def name_of(number: int) -> str:
    return f"number {number}"


@app.orchestrator(name="bench.fanout")
async def fanout(ctx: OrchestrationContext, width: int) -> list[str]:
    return await asyncio.gather(*(ctx.call_activity(name_of, n) for n in range(width)))


async def run(bench: Bench) -> None:
    """Run it again and again."""
    width = bench.size("width")
    expected = [f"number {number}" for number in range(width)]

    async def run_one(_: int) -> None:
        check(await bench.client.execute(fanout, width), expected, "a fan-out")

    await bench.load(run_one, activities=width)
