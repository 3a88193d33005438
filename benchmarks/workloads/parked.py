"""Many instances that wait for an event: what they cost while nothing happens.

Memory each, queries of the idle hub per second, and how long one takes to wake up.
"""

import asyncio
import time

from benchmarks.bench import WRITE_BEHIND_S, Bench
from benchmarks.closed_loop import closed_loop
from benchmarks.errors import WrongAnswer
from benchmarks.postgres_stats import REPORT_DELAY_S
from benchmarks.report import latency_figures
from shardrt import StartRequest

BATCH = 500
WOKEN_MAX = 500


async def run(bench: Bench) -> None:
    n = bench.options.n
    await _park(bench, "warm-up", BATCH)
    before = bench.meter.memory()
    started_s = time.perf_counter()
    ids = await _park(bench, "parking", n)
    bench.figures["starts_per_s"] = round(len(ids) / (time.perf_counter() - started_s), 1)
    await asyncio.sleep(WRITE_BEHIND_S + (REPORT_DELAY_S if bench.postgres else 0.0))
    after = bench.meter.memory()
    grown = {role: (after[role] - before.get(role, 0)) / len(ids) for role in after}
    bench.figures["memory_bytes_per_instance"] = {
        role: round(each) for role, each in sorted(grown.items())
    } | {"total": round(sum(grown.values()))}
    bench.figures["memory_bytes_total"] = sum(after.values())
    await _idle(bench)
    await _wake(bench, ids[:: max(1, len(ids) // WOKEN_MAX)])


async def _park(bench: Bench, title: str, n: int) -> list[str]:
    bar = bench.progress.add_task(title, total=n)
    ids: list[str] = []

    async def start_batch(number: int) -> None:
        size = min(BATCH, n - number * BATCH)
        handles = await bench.client.start_many([StartRequest("echo_event")] * size)
        ids.extend(handle.instance_id for handle in handles)
        bench.progress.advance(bar, size)

    batches = -(-n // BATCH)
    await closed_loop(start_batch, batches, bench.options.concurrency, lambda: None)
    return ids


async def _idle(bench: Bench) -> None:
    """Note queries and CPU of the hub while nothing happens."""
    seconds = bench.options.idle_s
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
    bar = bench.progress.add_task("waking", total=len(ids))

    async def wake(number: int) -> None:
        handle = bench.client.handle(ids[number])
        await bench.client.raise_event(ids[number], "go", number)
        result = await handle.result()
        if result != number:
            raise WrongAnswer(f"{ids[number]} returned {result!r} instead of {number}")

    timing = await closed_loop(wake, len(ids), 1, lambda: bench.progress.advance(bar))
    bench.figures["wake_ms"] = latency_figures(timing.latencies_s)
