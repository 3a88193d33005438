"""Results as tables for people."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from shardrt.bench.errors import RunFailed
from shardrt.bench.results import Kind, by_kind, number, spreads


def summary(runs: Sequence[dict[str, Any]]) -> list[Group]:
    """Return a table per kind of run: medians, and the range if there are several."""
    return [_one(kind, of_kind) for kind, of_kind in by_kind(runs).items()]


def _one(kind: Kind, runs: list[dict[str, Any]]) -> Group:
    table = Table(box=None)
    table.add_column("figure")
    table.add_column("value" if len(runs) == 1 else f"median of {len(runs)} (range)")
    for name, found in spreads(runs).items():
        table.add_row(name, str(found))
    return Group(Text(" ".join(kind)), table, Text())


def comparison(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[Group]:
    """Return a table per kind of run that both have, with the ratio of the medians.

    Raises:
        RunFailed: they have none in common.
    """
    first, second = by_kind(before), by_kind(after)
    shared = [kind for kind in first if kind in second]
    if not shared:
        raise RunFailed("no workload was measured with the same settings in both files")
    return [_pair(kind, first[kind], second[kind]) for kind in shared]


def _pair(kind: Kind, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Group:
    table = Table(box=None)
    table.add_column("figure")
    table.add_column(f"A, {len(before)} runs")
    table.add_column(f"B, {len(after)} runs")
    table.add_column("B / A", justify="right")
    table.add_column("ranges")
    first, second = spreads(before), spreads(after)
    for name, a in first.items():
        if (b := second.get(name)) is None:
            continue
        ratio = number(b.median / a.median) if a.median else "-"
        apart = b.low > a.high or b.high < a.low
        table.add_row(name, str(a), str(b), ratio, "apart" if apart else "overlap")
    return Group(Text(" ".join(kind)), table, Text())
