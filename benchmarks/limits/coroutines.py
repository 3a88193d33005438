"""The code of a workload with nothing made durable: what Python itself needs for it.

    python -m benchmarks.limits.coroutines [--n 20000] [--steps 100] [--width 100]

The very orchestrators of `shardrt.bench` run on a context that awaits the activity's function
at once, on a plain event loop. Prints a line of JSON per workload.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import uvloop

from shardrt.bench.workloads.fanout import fanout
from shardrt.bench.workloads.hello import EXPECTED, hello
from shardrt.bench.workloads.sequence import sequence

if TYPE_CHECKING:
    from shardrt import OrchestrationContext


class BareContext:
    """Calls what an orchestrator asks for, and remembers nothing."""

    def call_activity(
        self, function: Callable[[Any], Awaitable[Any]], given: Any
    ) -> Awaitable[Any]:
        return function(given)


async def measure(name: str, n: int, run_one: Callable[[], Awaitable[Any]], expected: Any) -> None:
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in range(n):
        assert await run_one() == expected
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    each = {"cpu_us_per_instance": round(cpu_s / n * 1e6, 2), "instances_per_s": round(n / wall_s)}
    print(json.dumps({"measured": name, "n": n, **each}))


async def main(n: int, steps: int, width: int) -> None:
    context = cast("OrchestrationContext", BareContext())
    names = [f"number {number}" for number in range(width)]
    await measure("hello", n, lambda: hello(context), EXPECTED)
    await measure(f"sequence of {steps}", n // 10, lambda: sequence(context, steps), steps)
    await measure(f"fanout of {width}", n // 10, lambda: fanout(context, width), names)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--width", type=int, default=100)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(given.n, given.steps, given.width))
