"""Two ways to put load on a hub.

*Closed*: a fixed number of instances in flight, each that ends makes room for the next. It
tells what a hub can carry. *Open*: starts at a fixed rate, whatever becomes of them, as
callers come who know nothing of each other. Latency counts from when a start was *meant* to
happen: a hub, or a client, that stalls for a second makes a thousand callers wait, not one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shardrt.bench.errors import RunFailed
from shardrt.bench.latencies import Latencies

RunOne = Callable[[int], Awaitable[None]]
"""Run instance number n to its end and check the answer."""

IN_FLIGHT_MAX = 50_000
"""An open loop gives up with more: then the hub does not keep up."""


@dataclass
class Timing:
    """What a loop measured."""

    latencies: Latencies = field(default_factory=Latencies)
    """From each start to its result."""
    seconds: float = 0.0
    """From the first start to the last result."""
    per_second: list[int] = field(default_factory=list)
    """Results in each second of the loop."""
    starts_late_s: float = 0.0
    """In an open loop: by how much a start was later than it was meant to be, at most."""

    def ended(self, start_s: float, loop_start_s: float) -> None:
        """Count a result that has come just now."""
        now_s = time.perf_counter()
        self.latencies.record(now_s - start_s)
        second = int(now_s - loop_start_s)
        self.per_second += [0] * (second + 1 - len(self.per_second))
        self.per_second[second] += 1


async def closed_loop(
    run_one: RunOne, n: int, concurrency: int, advance: Callable[[], None]
) -> Timing:
    """Run `n` instances, `concurrency` at a time; the first failure ends the loop."""
    numbers = iter(range(n))
    timing = Timing()
    loop_start_s = time.perf_counter()

    async def work() -> None:
        for number in numbers:
            start_s = time.perf_counter()
            await run_one(number)
            timing.ended(start_s, loop_start_s)
            advance()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, n)):
            group.create_task(work())
    timing.seconds = time.perf_counter() - loop_start_s
    return timing


async def open_loop(run_one: RunOne, n: int, rate: float, advance: Callable[[], None]) -> Timing:
    """Run `n` instances, `rate` starts per second; the first failure ends the loop.

    Raises:
        RunFailed: more than `IN_FLIGHT_MAX` are under way.
    """
    timing = Timing()
    in_flight = 0
    loop_start_s = time.perf_counter()

    async def work(number: int, meant_s: float) -> None:
        nonlocal in_flight
        await run_one(number)
        in_flight -= 1
        timing.ended(meant_s, loop_start_s)
        advance()

    async with asyncio.TaskGroup() as group:
        for number in range(n):
            meant_s = loop_start_s + number / rate
            # Also when late: those under way must go on.
            await asyncio.sleep(max(0.0, meant_s - time.perf_counter()))
            timing.starts_late_s = max(timing.starts_late_s, time.perf_counter() - meant_s)
            in_flight += 1
            if in_flight > IN_FLIGHT_MAX:
                raise RunFailed(f"{rate:g} per second are too many: {in_flight} are in flight")
            group.create_task(work(number, meant_s))
    timing.seconds = time.perf_counter() - loop_start_s
    return timing
