"""What can be run, by name. A workload notes its figures in `bench.figures`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.workloads import events, hello, parked


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload, and the size at which it says something."""

    run: Callable[[Bench], Awaitable[None]]
    n: int
    concurrency: int


WORKLOADS = {
    "hello": Workload(run=hello.run, n=20_000, concurrency=500),
    "single": Workload(run=hello.run, n=500, concurrency=1),
    "events": Workload(run=events.run, n=10_000, concurrency=500),
    "parked": Workload(run=parked.run, n=10_000, concurrency=8),
}
