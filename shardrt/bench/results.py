"""Files of results: a line of JSON per run. Several runs of one kind have a spread."""

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardrt.bench.errors import RunFailed

Kind = tuple[str, ...]
"""Workload and settings: runs of one kind can be compared."""

COSTS = ("cpu_us_per_instance", "store_per_instance")
"""Shown last."""


@dataclass(frozen=True)
class Spread:
    """A figure in several runs."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}-{number(self.high)})"


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the runs in files of results.

    Raises:
        RunFailed: a file is none, or cannot be read.
    """
    runs = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            found = [json.loads(line) for line in lines if line.strip()]
            _ = [(run["workload"], run["n"], run["settings"], run["figures"]) for run in found]
        except OSError as error:
            raise RunFailed(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunFailed(f"{path} is no file of results of `shardrt bench`") from error
        runs += found
    return runs


def kind_of(run: dict[str, Any]) -> Kind:
    """Return what runs must share to be compared."""
    settings = {name: run["settings"][name] for name in sorted(run["settings"])}
    return (
        run["workload"],
        f"n={run['n']}",
        *(f"{name}={value}" for name, value in settings.items() if name != "warmup"),
    )


def by_kind(runs: Iterable[dict[str, Any]]) -> dict[Kind, list[dict[str, Any]]]:
    """Return the runs of each kind."""
    found: dict[Kind, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(kind_of(run), []).append(run)
    return found


def spreads(runs: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    """Return every figure that all these runs have."""
    flat = [dict(flatten(run["figures"])) for run in runs]
    shared = [name for name in flat[0] if all(name in each for each in flat)]
    shared.sort(key=lambda name: name.startswith(COSTS))
    return {name: spread([each[name] for each in flat]) for name in shared}


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def flatten(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers among figures with dotted names."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", value


def number(value: float) -> str:
    """Return a number with four digits or more, as people write it."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"
