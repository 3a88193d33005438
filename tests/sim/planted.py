"""Bugs planted one at a time, to see that the simulation finds each.

    python -m tests.sim.planted              all of them, within 200 seeds; prints a table
    python -m tests.sim.planted outbox       those whose names begin so

The bugs are in `tests.sim.bugs`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from shardrt.testing.sim.run import simulate
from tests.sim.bugs import ALL
from tests.sim.patching import planted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEEDS = 200


# -- finding them ----------------------------------------------------------------------------------


class Found(NamedTuple):
    """What the simulation made of a bug."""

    bug: str
    seed: int | None
    invariant: str = ""
    text: str = ""


def find(name: str, seeds: range = range(SEEDS)) -> Found:
    """Run seeds with a bug until one fails."""
    with planted(name):
        for seed in seeds:
            report = simulate(seed)
            if report.violations:
                first = report.violations[0]
                return Found(name, seed, first.invariant, first.text)
    return Found(name, None)


def find_all(names: Sequence[str], seeds: int = SEEDS) -> Iterator[Found]:
    """Find these within so many seeds, on all cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as workers:
        yield from workers.map(find, names, repeat(range(seeds)))


def main() -> int:
    """Find all, and print a table; return how many were not found."""
    prefix = " ".join(sys.argv[1:])
    names = [name for name in ALL if name.startswith(prefix)]
    missed = 0
    if names:
        for found in find_all(names):
            missed += found.seed is None
            seed = "MISSED" if found.seed is None else found.seed
            told = f"{found.invariant}: {found.text[:100]}"
            breaks = ALL[found.bug].breaks
            sys.stdout.write(f"| {found.bug} | {breaks} | {seed} | {told} |\n")
            sys.stdout.flush()
    return missed


if __name__ == "__main__":
    sys.exit(main())
