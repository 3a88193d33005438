"""Start, wait for an external event, finish: what a request with a callback costs."""

from benchmarks.bench import Bench
from benchmarks.errors import WrongAnswer


async def run(bench: Bench) -> None:
    async def run_one(number: int) -> None:
        handle = await bench.client.start("echo_event")
        await bench.client.raise_event(handle.instance_id, "go", number)
        result = await handle.result()
        if result != number:
            raise WrongAnswer(f"{handle.instance_id} returned {result!r} instead of {number}")

    await bench.closed_loop(run_one, activities=0)
