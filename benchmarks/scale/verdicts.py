"""Rows of figures, and whether a cost is flat over them."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from shardrt.bench.results import number

Row = dict[str, float | None]
"""What was varied comes first. None: this row cannot have it."""

FLAT = 0.2
"""A cost is flat if the highest is at most this much above the lowest; a share of what the same
costs elsewhere, if the highest is at most this much above 1."""

Verdict = dict[str, Any]


def growth(rows: Sequence[Row], cost: str) -> float:
    """Return by how much the highest cost is above the lowest, as a share of that."""
    found = values_of(rows, cost)
    return max(found) / min(found) - 1 if min(found) > 0 else float("inf")


def values_of(rows: Sequence[Row], cost: str) -> list[float]:
    return [value for row in rows if (value := row[cost]) is not None]


def verdicts(
    rows: Sequence[Row], costs: Sequence[str], shares: Sequence[str] = ()
) -> list[Verdict]:
    """Return whether each cost is flat, and each share.

    Shares are not compared with each other: one that falls does not grow, and one that is high
    throughout is not fine.
    """
    found = [verdict(cost, growth(rows, cost), "the lowest") for cost in costs if len(rows) > 1]
    return found + [verdict(each, max(values_of(rows, each)) - 1, "1") for each in shares]


def verdict(cost: str, more: float, above: str) -> Verdict:
    return {"cost": cost, "growth": round(more, 3), "above": above, "flat": more <= FLAT}


def said(verdict: Verdict) -> str:
    """Return a verdict as a sentence."""
    word = "flat" if verdict["flat"] else "NOT flat"
    side = "below" if verdict["growth"] < 0 else "above"
    return (
        f"{verdict['cost']} is {word}: the highest is {abs(verdict['growth']):.0%} {side}"
        f" {verdict['above']} ({FLAT:.0%} are flat)"
    )


def table_of(rows: Sequence[Row]) -> Table:
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*("-" if value is None else number(value) for value in row.values()))
    return table
