"""More is asked of a hub than it can carry: what is still done, and what becomes of the rest.

First a closed loop finds how many `hello` it carries per second. Then several times as many are
started per second, whatever becomes of them, by callers who do not come again when they are
refused. What was accepted must end well, and quickly enough; refusing must cost little; and
memory must not grow with what is offered.

Always starts a host of its own. The load comes from one process, which also needs a core: the
figure `offered_per_s` says what it reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardrt import Client
from shardrt.bench.errors import RunFailed, check
from shardrt.bench.latencies import Latencies
from shardrt.bench.workloads.hello import CITIES, EXPECTED, hello
from shardrt.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardrt.bench.bench import Bench

TICK_S = 0.005
MEMORY_INTERVAL_S = 2.0
"""Looking takes 25 ms of the load's process."""


@dataclass
class Offer:
    """What became of the starts that were offered."""

    started: int = 0
    refused: int = 0
    done_s: list[float] = field(default_factory=list)
    """When each result came."""
    latencies: Latencies = field(default_factory=Latencies)
    """Of those accepted: from the start to the result."""
    refusals: Latencies = field(default_factory=Latencies)
    """From a start to its refusal, of those that were not shed."""

    def shed(self) -> None:
        """Note a start that would be refused without being sent."""
        self.started += 1
        self.refused += 1

    def start(self, group: asyncio.TaskGroup, client: Client) -> None:
        """Start an instance; if it is accepted, it must end well."""
        self.started += 1
        group.create_task(self._one(client))

    async def _one(self, client: Client) -> None:
        began_s = time.perf_counter()
        try:
            check(await client.execute(hello), EXPECTED, "a hello")
        except Overloaded:
            self.refused += 1
            self.refusals.record(time.perf_counter() - began_s)
            return
        self.done_s.append(time.perf_counter())
        self.latencies.record(self.done_s[-1] - began_s)


async def run(bench: Bench) -> None:
    """Find the maximum, offer a multiple of it, and note what was done all the same."""
    served = bench.host.served
    if served is None:
        raise RunFailed("this workload overloads its host, so it must be its own")
    maximum = await _maximum(bench)
    seconds = bench.seconds("offer_s")
    rate = maximum * bench.seconds("factor")
    offer = Offer()
    async with (
        await Client.connect(served.url, retry_overloaded=False) as client,
        _memory(bench),
        asyncio.TaskGroup() as group,
    ):
        bench.progress.add_task(f"offering {rate:.0f} per second", total=None)
        began_s = time.perf_counter()
        while (now_s := time.perf_counter() - began_s) < seconds:
            for _ in range(offer.started, int(rate * now_s)):
                if client.is_overloaded:
                    offer.shed()
                else:
                    offer.start(group, client)
            await asyncio.sleep(TICK_S)
        over_s = time.perf_counter()
    in_time = sum(done_s <= over_s for done_s in offer.done_s)
    all_done_s = max([over_s, *offer.done_s])
    bench.figures |= {
        "offered_per_s": round(offer.started / seconds, 1),
        "goodput_per_s": round(in_time / seconds, 1),
        "goodput_share": round(in_time / seconds / maximum, 3),
        "accepted": offer.started - offer.refused,
        "refused": offer.refused,
        "all_done_after_s": round(all_done_s - over_s, 3),
        "carried_per_s": round(len(offer.done_s) / (all_done_s - began_s), 1),
        "latency_ms": offer.latencies.figures(),
        "refusal_ms": offer.refusals.figures(),
    }
    bench.series["latency"] = offer.latencies.encode()


async def _maximum(bench: Bench) -> float:
    async def run_one(_: int) -> None:
        check(await bench.client.execute(hello), EXPECTED, "a hello")

    await bench.loop("warm-up", run_one, max(1, bench.options.n // 10))
    timing = await bench.loop("finding the maximum", run_one, bench.options.n)
    bench.note(timing, len(CITIES), part="maximum")
    return len(timing.latencies) / timing.seconds


@contextlib.asynccontextmanager
async def _memory(bench: Bench) -> AsyncIterator[None]:
    """Note the memory of all processes before, at most, and after."""
    peak: dict[str, int] = {}

    async def look() -> dict[str, int]:
        found = await asyncio.to_thread(bench.meter.memory)
        for role, used in found.items():
            peak[role] = max(peak.get(role, 0), used)
        return found

    async def keep_looking() -> None:
        while True:
            await look()
            await asyncio.sleep(MEMORY_INTERVAL_S)

    before = await look()
    looking = asyncio.create_task(keep_looking())
    try:
        yield
    finally:
        looking.cancel()
    after = await look()
    bench.figures["memory_mb"] = {
        role: {
            "before": before.get(role, 0) >> 20,
            "peak": peak[role] >> 20,
            "after": after.get(role, 0) >> 20,
        }
        for role in sorted(peak)
    }
