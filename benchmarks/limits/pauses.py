"""What pauses cost: the same work, after times in which nothing was done.

    python -m benchmarks.limits.pauses [--rounds 3] [--json FILE]

A program that waits finds less of what it needs in the caches afterwards, above all where the
machine is shared with others. Two measurements, neither of which has a database:

- objects: so many of them are visited in the same order, again and again, with a pause between;
- a shard: `hello` in a shard alone (`benchmarks.costs.lone_shard`, a store in memory), so many in
  flight, with commits that only take time. All that are in flight take part in each commit, and
  there are no checkpoints: what is done for each `hello` is the same whatever commits take.

A hub at half load is such a program: it works and waits in turns, some hundred times a second. The
order of pauses is another one in each round.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.costs.lone_shard import load
from shardrt.bench.figures import machine, versions
from shardrt.bench.results import spread
from shardrt.config import Settings, ShardSettings
from shardrt.host import arrivals, committer
from shardrt.host.clock import HubClock

PAUSES_MS = (0, 1, 3, 10)
OBJECTS = (2_000, 8_000, 32_000)
IN_FLIGHT = (10, 30, 100, 300)
PARTITIONS = 8
VISITING_S = 0.5
HELLOS = 1_500
"""In each measurement of a shard, after half as many."""
SETTINGS = Settings(shard=ShardSettings(checkpoint_interval_s=3_600.0))
Found = dict[tuple[str, int], list[float]]
"""(what, pause in ms) → its cost in each round."""


class Visited:
    """An object of a common size: a slot, and a number of its own."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def visiting(count: int) -> Callable[[], int]:
    """Return what visits so many objects, in an order that no processor foresees."""
    objects = [Visited(1_000_000 + number) for number in range(count)]
    random.Random(count).shuffle(objects)

    def visit() -> int:
        return sum([each.number for each in objects])

    return visit


def ns_of_object(visit: Callable[[], int], count: int, pause_s: float) -> float:
    """Return what each visit costs, in ns of CPU."""
    end_s = time.perf_counter() + VISITING_S
    used_s, visits = 0.0, 0
    while time.perf_counter() < end_s:
        if pause_s:
            time.sleep(pause_s)
        before_s = time.process_time()
        visit()
        used_s += time.process_time() - before_s
        visits += 1
    return used_s / visits / count * 1e9


def us_of_hello(in_flight: int, pause_s: float) -> float:
    """Return what each `hello` costs a shard whose commits take so long, in µs of CPU."""
    run = load(
        PARTITIONS,
        in_flight,
        HELLOS,
        commit_s=pause_s,
        clock=HubClock(),
        settings=SETTINGS,
        warmup=HELLOS // 2,
    )
    with (
        patch.object(committer, "MANY", sys.maxsize),  # no pauses but ours
        patch.object(arrivals, "MOTION_MIN", sys.maxsize),  # no start waits for room
    ):
        return uvloop.run(run)["cpu_us_each"]


def measure(rounds: int, objects: Sequence[int], in_flight: Sequence[int]) -> Found:
    """Return all costs, measured in turns."""
    found: Found = {}
    visits = {count: visiting(count) for count in objects}
    for seed in range(rounds):
        for ms in random.Random(seed).sample(PAUSES_MS, len(PAUSES_MS)):
            for count, visit in visits.items():
                cost = ns_of_object(visit, count, ms / 1e3)
                found.setdefault((f"{count:,} objects, ns each", ms), []).append(cost)
            for number in in_flight:
                cost = us_of_hello(number, ms / 1e3)
                title = f"a shard, {number} in flight, µs per hello"
                found.setdefault((title, ms), []).append(cost)
    return found


def table_of(found: Found) -> Table:
    table = Table("CPU", *(f"{ms} ms" for ms in PAUSES_MS), box=None)
    for what in dict.fromkeys(what for what, _ in found):
        table.add_row(what, *(str(spread(found[what, ms])) for ms in PAUSES_MS))
    return table


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="In turns.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add a line.")
def main(*, rounds: int, out: Path | None) -> None:
    """Tell what the same work costs after pauses."""
    found = measure(rounds, OBJECTS, IN_FLIGHT)
    Console(width=130).print(table_of(found))
    if out is not None:
        rows = [{"what": what, "pause_ms": ms, "costs": each} for (what, ms), each in found.items()]
        line = {"measured": "pauses", "rows": rows, "machine": machine(), "versions": versions()}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
