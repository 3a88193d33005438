"""An orchestration that continues as new again and again: nothing may grow.

Each iteration runs one activity. Ten times on the way the rows and bytes in the store and
the memory of all processes are noted, with the time per iteration.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import RunFailed, check
from shardrt.bench.footprint import footprint
from shardrt.bench.workloads.sequence import add_one

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench
    from shardrt.client import OrchestrationHandle

app = App()

PARTS = 10
POLL_S = 0.05


@dataclass(frozen=True)
class Loop:
    """How far it is, and where it ends."""

    iterations: int
    reached: int = 0


@app.orchestrator(name="bench.eternal")
async def eternal(ctx: OrchestrationContext, loop: Loop) -> int:
    """Count to `loop.iterations`, one in each execution."""
    reached = await ctx.call_activity(add_one, loop.reached)
    ctx.set_custom_status(reached)
    if reached < loop.iterations:
        ctx.continue_as_new(replace(loop, reached=reached))
    return reached


async def run(bench: Bench) -> None:
    """Run `n` of them side by side, and note what they use."""
    iterations, n = bench.size("iterations"), bench.options.n
    if iterations < PARTS:
        raise RunFailed(f"give at least {PARTS} iterations")
    samples: list[dict[str, Any]] = []
    async with bench.accounting(n * iterations):
        started_s = time.perf_counter()
        handles = [await bench.client.start(eternal, Loop(iterations)) for _ in range(n)]
        bar = bench.progress.add_task("iterations", total=n * iterations)
        for part in range(1, PARTS + 1):
            await _reach(bench, handles, n * iterations * part // PARTS, bar)
            samples.append(await _sample(bench, time.perf_counter() - started_s))
        for handle in handles:
            check(await handle.result(), iterations, handle.instance_id)
        seconds = time.perf_counter() - started_s
    bench.figures["seconds"] = round(seconds, 3)
    bench.figures["iterations_per_s"] = round(n * iterations / seconds, 1)
    bench.figures["first_tenth"] = _use_of(samples[0], None, n * iterations // PARTS)
    bench.figures["last_tenth"] = _use_of(samples[-1], samples[-2], n * iterations // PARTS)
    bench.series["samples"] = samples


async def _reach(
    bench: Bench, handles: list[OrchestrationHandle[int]], wanted: int, bar: Any
) -> None:
    reached = 0
    while reached < wanted:
        await asyncio.sleep(POLL_S)
        found = [await handle.status() for handle in handles]
        reached = sum(each.custom_status or 0 for each in found if each is not None)
        bench.progress.update(bar, completed=reached)


async def _sample(bench: Bench, seconds: float) -> dict[str, Any]:
    memory = await asyncio.to_thread(bench.meter.memory)
    stored = await asyncio.to_thread(footprint, bench.store_url)
    return {"seconds": seconds, "memory_bytes": memory, "store": stored}


def _use_of(sample: dict[str, Any], before: dict[str, Any] | None, iterations: int) -> Any:
    since_s = before["seconds"] if before else 0.0
    each_us = (sample["seconds"] - since_s) / iterations * 1e6
    return {**sample, "seconds": round(sample["seconds"], 2), "iteration_us": round(each_us, 1)}
