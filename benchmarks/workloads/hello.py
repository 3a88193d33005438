"""Five activities in a row, each of which does nothing.

At concurrency 1 (`single`) this is the latency of an idle hub.
"""

from benchmarks.bench import Bench
from benchmarks.errors import WrongAnswer
from shardrt.samples.hello import CITIES

ACTIVITIES = len(CITIES)
EXPECTED = [f"Hello {city}!" for city in CITIES]


async def run(bench: Bench) -> None:
    async def run_one(_: int) -> None:
        handle = await bench.client.start("hello")
        result = await handle.result()
        if result != EXPECTED:
            raise WrongAnswer(f"{handle.instance_id} returned {result!r}")

    await bench.closed_loop(run_one, activities=ACTIVITIES)
