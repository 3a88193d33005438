"""One instance with a long history: a step must cost the same at its end as at its start."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - the result is decoded by it
from itertools import pairwise
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import RunFailed, check
from shardrt.bench.workloads.sequence import add_one

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()

PARTS = 10


@app.orchestrator(name="bench.long_history")
async def long_history(ctx: OrchestrationContext, steps: int) -> list[datetime]:
    """Count to `steps` by activities; return when each tenth was done."""
    marks = [ctx.current_utc_datetime]
    reached = 0
    for part in range(PARTS):
        while reached < steps * (part + 1) // PARTS:
            reached = await ctx.call_activity(add_one, reached)
        marks.append(ctx.current_utc_datetime)
        ctx.set_custom_status(reached)
    return marks


async def run(bench: Bench) -> None:
    """Run it, and compare the time per step in its tenths."""
    steps = bench.size("steps")
    if steps < PARTS:
        raise RunFailed(f"give at least {PARTS} steps")
    marks: list[list[datetime]] = []

    async def run_one(_: int) -> None:
        handle = await bench.client.start(long_history, steps)
        marks.append(await handle.result())
        status = await handle.status()
        check(status and status.custom_status, steps, f"the steps of {handle.instance_id}")

    await bench.load(run_one, activities=steps)
    tenths = [tenths_us(each, steps) for each in marks]
    bench.figures["step_us_by_tenth"] = tenths[0]
    bench.figures["step_us"] = {
        "first_tenth": round(sum(each[0] for each in tenths) / len(tenths), 1),
        "last_tenth": round(sum(each[-1] for each in tenths) / len(tenths), 1),
    }


def tenths_us(marks: list[datetime], steps: int) -> list[float]:
    """Return the microseconds per step between marks."""
    per_part = steps / PARTS
    return [
        round((end - start).total_seconds() * 1e6 / per_part, 1) for start, end in pairwise(marks)
    ]
