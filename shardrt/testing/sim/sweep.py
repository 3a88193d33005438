"""Many runs, on several cores."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from shardrt.testing.sim.run import Report, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH = 10
"""Seeds that a worker process runs at a time."""


def sweep(seeds: Sequence[int], jobs: int = 2, *, keep_trace: bool = False) -> Iterator[Report]:
    """Run all seeds, and yield their reports in order, by default without their traces."""
    run = simulate if keep_trace else _run
    if jobs == 1 or len(seeds) == 1:
        yield from map(run, seeds)
        return
    # Fresh interpreters: what a fork would inherit of this process must not matter.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as workers:
        yield from workers.map(run, seeds, chunksize=BATCH)


def _run(seed: int) -> Report:
    report = simulate(seed)
    report.trace = []
    return report
