"""Results as pictures: throughput with its spread, throughput over time, and latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from shardrt.bench.errors import RunFailed
from shardrt.bench.latencies import Latencies
from shardrt.bench.results import Kind, by_kind, spread

PERCENTS = [0.0, *(100 - 100 / 1.3**step for step in range(1, 36))]
NINES = {0: "0", 1: "90", 2: "99", 3: "99.9"}
SIZE_INCHES = (9, 5)


def draw(runs: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """Draw what there is to draw; return the files.

    Raises:
        RunFailed: nothing.
    """
    kinds = by_kind(runs)
    figures = {
        "throughput": _throughput(kinds),
        "over-time": _over_time(kinds),
        "latency": _latency(kinds),
    }
    drawn = {name: figure for name, figure in figures.items() if figure.axes[0].has_data()}
    if not drawn:
        raise RunFailed("these results have no throughput and no latencies")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.png" for name in drawn]
    for file, figure in zip(files, drawn.values(), strict=True):
        figure.savefig(file, bbox_inches="tight")
    return files


def _canvas(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE_INCHES)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _throughput(kinds: dict[Kind, list[dict[str, Any]]]) -> Figure:
    """Bars: medians; whiskers: from the lowest run to the highest."""
    figure, axes = _canvas("", "instances per second")
    for kind, runs in kinds.items():
        rates = [run["figures"].get("instances_per_s") for run in runs]
        if all(rates):
            found = spread(rates)
            whiskers = [[found.median - found.low], [found.high - found.median]]
            axes.bar(_label(kind, 2), found.median, yerr=whiskers, capsize=4)
    axes.tick_params(axis="x", rotation=20)
    return figure


def _over_time(kinds: dict[Kind, list[dict[str, Any]]]) -> Figure:
    figure, axes = _canvas("second of the measurement", "results in that second")
    for kind, runs in kinds.items():
        for number, run in enumerate(runs):
            # The last second is not a whole one.
            if per_second := run.get("series", {}).get("per_second", [])[:-1]:
                axes.plot(per_second, label=f"{_label(kind)} #{number + 1}")
    return _with_legend(figure, axes)


def _latency(kinds: dict[Kind, list[dict[str, Any]]]) -> Figure:
    """Draw each nine of the share of all as wide as the one before."""
    figure, axes = _canvas("percentile", "ms")
    for kind, runs in kinds.items():
        encoded = [run.get("series", {}).get("latency") for run in runs]
        if known := [each for each in encoded if each]:
            latencies = Latencies.decode(*known)
            beyond = [100 / (100 - percent) for percent in PERCENTS]
            axes.plot(beyond, [latencies.ms(each) for each in PERCENTS], label=_label(kind))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([10.0**nines for nines in NINES], list(NINES.values()))
    return _with_legend(figure, axes)


def _with_legend(figure: Figure, axes: Any) -> Figure:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="x-small")
    return figure


def _label(kind: Kind, parts: int | None = None) -> str:
    return " ".join(kind[:parts])
