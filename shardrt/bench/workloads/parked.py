"""Many instances that wait for an event: what they cost while nothing happens.

Memory each, queries of the idle hub per second, and how long one takes to wake up.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from shardrt import StartRequest
from shardrt.bench.errors import check
from shardrt.bench.postgres_stats import REPORT_DELAY_S
from shardrt.bench.workloads.events import echo_event

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

BATCH = 500
WOKEN_MAX = 500
WRITE_BEHIND_S = 2.0


async def run(bench: Bench) -> None:
    """Park them, look at the idle hub, wake some."""
    await _park(bench, "warm-up", BATCH)
    before = bench.meter.memory()
    started_s = time.perf_counter()
    ids = await _park(bench, "parking", bench.options.n)
    bench.figures["starts_per_s"] = round(len(ids) / (time.perf_counter() - started_s), 1)
    await asyncio.sleep(WRITE_BEHIND_S + (REPORT_DELAY_S if bench.postgres else 0.0))
    after = bench.meter.memory()
    grown = {role: (after[role] - before.get(role, 0)) / len(ids) for role in after}
    bench.figures["memory_bytes_per_instance"] = {
        role: round(each) for role, each in sorted(grown.items())
    } | {"total": round(sum(grown.values()))}
    bench.figures["memory_bytes"] = after | {"total": sum(after.values())}
    await _idle(bench)
    await _wake(bench, ids[:: max(1, len(ids) // WOKEN_MAX)])


async def _park(bench: Bench, title: str, n: int) -> list[str]:
    bar = bench.progress.add_task(title, total=n)
    ids: list[str] = []
    for first in range(0, n, BATCH):
        wanted = [StartRequest(echo_event)] * min(BATCH, n - first)
        ids += [handle.instance_id for handle in await bench.client.start_many(wanted)]
        bench.progress.advance(bar, len(wanted))
    return ids


async def _idle(bench: Bench) -> None:
    """Note queries and CPU of the hub while nothing happens."""
    seconds = bench.seconds("idle_s")
    before = await asyncio.to_thread(bench.postgres.read) if bench.postgres else None
    bench.meter.start()
    bench.progress.add_task(f"idle for {seconds:g} s", total=None)
    await asyncio.sleep(seconds)
    bench.meter.read()
    bench.figures["idle_cpu_percent"] = {
        role: round(used / seconds / 10_000, 2) for role, used in bench.meter.cpu_us().items()
    }
    if bench.postgres and before:
        used = await asyncio.to_thread(bench.postgres.read) - before
        per_s = (used.commits + used.rollbacks) / seconds
        bench.figures["idle_queries_per_s"] = round(per_s, 2)


async def _wake(bench: Bench, ids: list[str]) -> None:
    """Wake some of them, one after the other, and note from event to result."""

    async def wake(number: int) -> None:
        handle = bench.client.handle(ids[number], echo_event)
        await handle.raise_event("go", number)
        check(await handle.result(), number, handle.instance_id)

    timing = await bench.loop("waking", wake, len(ids), concurrency=1)
    bench.figures["wake_ms"] = timing.latencies.figures()
    bench.series["latency"] = timing.latencies.encode()
