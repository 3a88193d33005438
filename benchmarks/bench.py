"""One run: everything a workload may use, and the accounting around it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress

from benchmarks.closed_loop import RunOne, Timing, closed_loop
from benchmarks.metering import CpuMeter
from benchmarks.options import Options
from benchmarks.postgres_stats import REPORT_DELAY_S, PostgresStats
from benchmarks.report import cpu_figures, store_figures, timing_figures
from shardrt import Client

READ_INTERVAL_S = 1.0
WRITE_BEHIND_S = 2.0
"""Checkpoints come at most this much later than what they hold."""


@dataclass
class Bench:
    """What a workload works with."""

    client: Client
    options: Options
    meter: CpuMeter
    postgres: PostgresStats | None
    progress: Progress
    figures: dict[str, Any] = field(default_factory=dict)
    """The results so far."""

    async def closed_loop(self, run_one: RunOne, *, activities: int) -> Timing:
        """Warm up, measure, and note throughput, latency and cost per instance."""
        options = self.options
        await self._loop("warm-up", run_one, options.warmup)
        async with self.accounting(options.n):
            timing = await self._loop("measuring", run_one, options.n)
        self.figures |= timing_figures(timing, activities)
        return timing

    async def _loop(self, title: str, run_one: RunOne, n: int) -> Timing:
        bar = self.progress.add_task(title, total=n)
        return await closed_loop(
            run_one, n, self.options.concurrency, lambda: self.progress.advance(bar)
        )

    @asynccontextmanager
    async def accounting(self, n: int) -> AsyncIterator[None]:
        """Note CPU and store writes of the block, per instance, its checkpoints included."""
        before = await asyncio.to_thread(self.postgres.read) if self.postgres else None
        self.meter.start()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._keep_reading())
            yield
            await asyncio.sleep(WRITE_BEHIND_S)
            reading.cancel()
        self.meter.read()
        self.figures["cpu_us_per_instance"] = cpu_figures(self.meter.cpu_us(), n)
        if self.postgres and before:
            await asyncio.sleep(REPORT_DELAY_S)
            used = await asyncio.to_thread(self.postgres.read) - before
            self.figures["store_per_instance"] = store_figures(used, n)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(READ_INTERVAL_S)
            self.meter.read()
