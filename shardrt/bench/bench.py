"""One run: everything a workload may use, and the accounting around it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress

from shardrt import Client
from shardrt.bench.figures import cpu_figures, store_figures, timing_figures
from shardrt.bench.hosts import Host
from shardrt.bench.latencies import Latencies
from shardrt.bench.loops import RunOne, Timing, closed_loop, open_loop
from shardrt.bench.metering import CpuMeter
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import REPORT_DELAY_S, PostgresStats

READ_INTERVAL_S = 1.0
WRITE_BEHIND_S = 2.0
"""Checkpoints come at most this much later than what they hold, in proportion later if a shard
has more than 32 partitions."""


@dataclass
class Bench:
    """What a workload works with."""

    host: Host
    options: Options
    meter: CpuMeter
    postgres: PostgresStats | None
    store_url: str
    """Empty if nobody told."""
    progress: Progress
    figures: dict[str, Any] = field(default_factory=dict)
    """The results so far."""
    series: dict[str, Any] = field(default_factory=dict)
    """What plots are drawn from."""
    name: str = field(default_factory=lambda: os.urandom(4).hex())
    """Unlike that of any other run; for keys of entities."""

    @property
    def client(self) -> Client:
        return self.host.client

    def size(self, name: str) -> int:
        """Return one of the workload's own settings."""
        return int(self.options.sizes[name])

    def seconds(self, name: str) -> float:
        """Return one of the workload's own settings that is a duration."""
        return float(self.options.sizes[name])

    async def load(self, run_one: RunOne, *, activities: int = 0) -> Timing:
        """Warm up, measure, and note throughput, latency and cost per instance."""
        await self.warm_up(run_one)
        async with self.accounting(self.options.n):
            timing = await self.loop("measuring", run_one, self.options.n)
        self.note(timing, activities)
        return timing

    async def warm_up(self, run_one: RunOne) -> None:
        """Run the first instances, which find everything cold."""
        if self.options.warmup:
            await self.loop("warm-up", run_one, self.options.warmup)

    async def loop(
        self, title: str, run_one: RunOne, n: int, *, concurrency: int | None = None
    ) -> Timing:
        """Run `n` instances as the options say, or so many at a time, with a progress bar."""
        bar = self.progress.add_task(title, total=n)
        rate = self.options.rate
        if rate is not None and concurrency is None:
            return await open_loop(run_one, n, rate, lambda: self.progress.advance(bar))
        concurrency = concurrency or self.options.concurrency
        return await closed_loop(run_one, n, concurrency, lambda: self.progress.advance(bar))

    def note(self, timing: Timing, activities: int = 0, *, part: str | None = None) -> None:
        """Add what a loop measured to the results; with `part`, under a name of its own."""
        figures = timing_figures(timing, activities)
        self.figures |= figures if part is None else {part: figures}
        self.series["latency"] = timing.latencies.encode()
        self.series["per_second"] = timing.per_second

    def note_durations(self, name: str, seconds: Iterable[float]) -> None:
        """Add the percentiles of durations to the results."""
        durations = Latencies(seconds)
        self.figures[name] = durations.figures()
        self.series["latency"] = durations.encode()

    @asynccontextmanager
    async def accounting(self, n: int) -> AsyncIterator[None]:
        """Note CPU and store writes of the block, per instance, its checkpoints included."""
        before = await asyncio.to_thread(self.postgres.read) if self.postgres else None
        self.meter.start()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._keep_reading())
            yield
            await asyncio.sleep(WRITE_BEHIND_S * max(1.0, self.options.partitions_each / 32))
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
