"""Many activities in a row, each of which gets what the one before returned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()


@app.activity(name="bench.add_one")
async def add_one(number: int) -> int:
    return number + 1


@app.orchestrator(name="bench.sequence")
async def sequence(ctx: OrchestrationContext, steps: int) -> int:
    reached = 0
    for _ in range(steps):
        reached = await ctx.call_activity(add_one, reached)
    return reached


async def run(bench: Bench) -> None:
    """Run it again and again."""
    steps = bench.size("steps")

    async def run_one(_: int) -> None:
        check(await bench.client.execute(sequence, steps), steps, "a sequence")

    await bench.load(run_one, activities=steps)
