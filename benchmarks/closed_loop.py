"""A fixed number of instances in flight: each that ends makes room for the next.

Throughput at a given concurrency, and latency as each caller sees it. It does not show what
happens when callers come faster than they are served: that is for an open loop.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

RunOne = Callable[[int], Awaitable[None]]
"""Run instance number n to its end and check the answer."""


@dataclass(frozen=True)
class Timing:
    """What a loop measured."""

    seconds: float
    """From the first start to the last result."""
    latencies_s: list[float]
    """From each start to its result."""


async def closed_loop(
    run_one: RunOne, n: int, concurrency: int, advance: Callable[[], None]
) -> Timing:
    """Run `n` instances, `concurrency` at a time; the first failure ends the loop."""
    numbers = iter(range(n))
    latencies: list[float] = []

    async def work() -> None:
        for number in numbers:
            start_s = time.perf_counter()
            await run_one(number)
            latencies.append(time.perf_counter() - start_s)
            advance()

    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, n)):
            group.create_task(work())
    return Timing(time.perf_counter() - start_s, latencies)
