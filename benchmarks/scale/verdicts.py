"""Rows of figures, and whether a cost is flat over them."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from shardrt.bench.results import number

Row = dict[str, float | None]
"""What was varied comes first. None: this row cannot have it."""

FLAT = 0.2
"""A cost is flat if the highest is at most this much above the lowest."""


def growth(rows: Sequence[Row], cost: str) -> float:
    """Return by how much the highest cost is above the lowest, as a share of that."""
    found = [value for row in rows if (value := row[cost]) is not None]
    return max(found) / min(found) - 1 if min(found) > 0 else float("inf")


def verdicts(rows: Sequence[Row], costs: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each cost how much it grows, and whether that is flat."""
    found = [(cost, growth(rows, cost)) for cost in costs if len(rows) > 1]
    return [
        {"cost": cost, "growth": round(share, 3), "flat": share <= FLAT} for cost, share in found
    ]


def said(verdict: dict[str, Any]) -> str:
    """Return a verdict as a sentence."""
    word = "flat" if verdict["flat"] else "NOT flat"
    return (
        f"{verdict['cost']} is {word}: the highest is {verdict['growth']:.0%} above the lowest"
        f" ({FLAT:.0%} are flat)"
    )


def table_of(rows: Sequence[Row]) -> Table:
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*("-" if value is None else number(value) for value in row.values()))
    return table
