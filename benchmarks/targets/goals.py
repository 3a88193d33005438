"""The targets: which figure of which run, and what it should be."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from shardrt.bench.options import Options
from shardrt.bench.results import number, spread


@dataclass(frozen=True)
class Run:
    """How a workload is run for its targets."""

    workload: str
    options: Options
    rate_of: str = ""
    """At half of the throughput of this other run."""


@dataclass(frozen=True)
class Target:
    """What a figure should be: at least, or at most."""

    what: str
    run: str
    figure: str
    """Its name among the figures, with dots: `latency_ms.p50`."""
    bound: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


PER_SHARD = 8
"""Partitions: found best where throughput counts. The default of 32 leaves room for more hosts."""
_FULL = Options(n=40_000, concurrency=1_000, warmup=2_000, partitions=2 * PER_SHARD)

RUNS: dict[str, Run] = {
    "full": Run("hello", _FULL),
    "embedded": Run(
        "hello", replace(_FULL, concurrency=500, mode="embedded", partitions=PER_SHARD)
    ),
    "alone": Run("hello", Options(n=1_000, concurrency=1, warmup=20)),
    "speculative": Run(
        "hello", Options(n=1_000, concurrency=1, warmup=20, sizes={"speculative": True})
    ),
    "half": Run("hello", replace(_FULL, n=20_000, concurrency=1), rate_of="full"),
    "events": Run("events", Options(n=20_000, concurrency=1_000, warmup=2_000)),
    "fanout": Run("fanout", Options(n=500, concurrency=20, warmup=50, sizes={"width": 100})),
    "tree": Run("tree", Options(n=300, concurrency=20, warmup=30, sizes={"depth": 3, "width": 4})),
}

TARGETS: tuple[Target, ...] = (
    Target("hello/s, serve", "full", "instances_per_s", 6_000, at_least=True),
    Target("CPU µs per hello, all processes", "full", "cpu_us_per_instance.total", 330),
    Target("commits per hello, full load", "full", "store_per_instance.commits", 0.1),
    Target("WAL bytes per hello, full load", "full", "store_per_instance.wal_bytes", 4_096),
    Target("hello/s, embedded", "embedded", "instances_per_s", 6_000, at_least=True),
    Target("hello alone, p50 ms", "alone", "latency_ms.p50", 5),
    Target("hello alone, p99 ms", "alone", "latency_ms.p99", 15),
    Target("commits per hello, alone", "alone", "store_per_instance.commits", 7),
    Target("speculative, alone, p50 ms", "speculative", "latency_ms.p50", 2.5),
    Target("hello at half load, p99 ms", "half", "latency_ms.p99", 40),
    Target("start, event, end/s", "events", "instances_per_s", 5_000, at_least=True),
    Target("activities/s, 100 at once", "fanout", "activities_per_s", 20_000, at_least=True),
    Target("orchestrations/s, tree", "tree", "orchestrations_per_s", 3_000, at_least=True),
)


def figure_of(figures: Mapping[str, Any], name: str) -> float:
    """Return a figure by its dotted name."""
    found: Any = figures
    for part in name.split("."):
        found = found[part]
    return float(found)


def rows_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return each target whose run there is, with the median of its figure and the range."""
    rows = []
    for target in TARGETS:
        values = [figure_of(each, target.figure) for each in found.get(target.run, ())]
        if not values:
            continue
        rows.append(
            {
                "target": target.what,
                "bound": f"{'≥' if target.at_least else '≤'} {number(target.bound)}",
                "measured": str(spread(values)),
                "met": target.is_met(statistics.median(values)),
            }
        )
    return rows


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None)
    for title in ("", "target", "measured, median (range)", "met"):
        table.add_column(title)
    for row in rows:
        table.add_row(row["target"], row["bound"], row["measured"], "yes" if row["met"] else "NO")
    return table
