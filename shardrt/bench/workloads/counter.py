"""Signals from a client to one entity, which counts them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shardrt import App, EntityId
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()


@app.entity(name="bench.counter")
class Counter:
    """One number."""

    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount

    def get(self) -> int:
        return self.value


async def run(bench: Bench) -> None:
    """Send, then ask: the question comes last, so it sees every signal."""
    counter = EntityId(Counter, bench.name)
    n = bench.options.n

    async def run_one(_: int) -> None:
        await bench.client.signal_entity(counter, Counter.add, 1)

    await bench.warm_up(run_one)
    async with bench.accounting(n):
        started_s = time.perf_counter()
        timing = await bench.loop("signalling", run_one, n)
        found = await bench.client.call_entity(counter, Counter.get)
        applied_per_s = n / (time.perf_counter() - started_s)
    check(found, n + bench.options.warmup, "the count")
    bench.note(timing)
    bench.figures["applied_per_s"] = round(applied_per_s, 1)
