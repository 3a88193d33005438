"""Files of results: read, summed up, compared, drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from shardrt.bench.errors import RunFailed
from shardrt.bench.latencies import Latencies
from shardrt.bench.plots import draw
from shardrt.bench.results import Spread, by_kind, flatten, number, read, spreads
from shardrt.bench.tables import comparison, summary

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG"


def result(per_s: float, workload: str = "hello", **settings: Any) -> dict[str, Any]:
    return {
        "workload": workload,
        "n": 10,
        "settings": {"warmup": 1, **settings},
        "figures": {"instances_per_s": per_s, "latency_ms": {"p50": 2.0}, "tenths": [1, 2]},
        "series": {"latency": Latencies([0.001, 0.1]).encode(), "per_second": [5, 5, 1]},
    }


def shown(tables: Any) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return [line.split() for line in captured.get().splitlines() if line.strip()]


def test_runs_are_read_from_all_files(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(json.dumps(result(1.0)) + "\n\n")
    assert read(files) == [result(1.0), result(1.0)]


@pytest.mark.parametrize("text", ["{", "[]\n", '{"workload": "hello"}'])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text(text)
    with pytest.raises(RunFailed, match="is no file of results"):
        read([file])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"cannot read .*missing"):
        read([tmp_path / "missing"])


def test_runs_with_other_settings_are_of_another_kind() -> None:
    runs = [result(1.0, rate=5), result(2.0, rate=5), result(3.0, rate=6)]
    kinds = [(kind[-1], len(of_kind)) for kind, of_kind in by_kind(runs).items()]
    assert kinds == [("rate=5", 2), ("rate=6", 1)]


def test_warming_up_longer_is_the_same_kind() -> None:
    assert len(by_kind([result(1.0), result(1.0) | {"settings": {"warmup": 2}}])) == 1


def test_a_spread_has_the_median_and_the_range() -> None:
    found = spreads([result(per_s) for per_s in (3.0, 1.0, 8.0)])
    assert found["instances_per_s"] == Spread(3.0, 1.0, 8.0)
    assert str(found["instances_per_s"]) == "3 (1-8)"


def test_figures_are_flattened_and_lists_left_out() -> None:
    assert dict(flatten(result(1.0)["figures"])) == {"instances_per_s": 1.0, "latency_ms.p50": 2.0}


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (1.23456, "1.235"), (3.0, "3"), (0.0, "0")]
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_one_run_is_summed_up() -> None:
    assert ["instances_per_s", "1.5"] in shown(summary([result(1.5)]))


def test_several_runs_are_summed_up_with_their_range() -> None:
    rows = shown(summary([result(1.5), result(2.5)]))
    assert ["instances_per_s", "2", "(1.5-2.5)"] in rows


def test_a_comparison_shows_ratio_and_whether_ranges_meet() -> None:
    before, after = [result(1.0), result(2.0)], [result(3.0), result(4.0)]
    rows = shown(comparison(before, after))
    assert ["instances_per_s", "1.5", "(1-2)", "3.5", "(3-4)", "2.333", "apart"] in rows
    assert ["latency_ms.p50", "2", "2", "1", "overlap"] in rows


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(RunFailed, match="same settings"):
        comparison([result(1.0)], [result(1.0, workload="tree")])


def test_plots_are_drawn(tmp_path: Path) -> None:
    files = draw([result(1.0), result(2.0)], tmp_path / "plots")
    assert [file.name for file in files] == ["throughput.png", "over-time.png", "latency.png"]
    assert all(file.read_bytes().startswith(PNG) for file in files)


def test_what_has_no_data_is_not_drawn(tmp_path: Path) -> None:
    run = result(1.0)
    run["series"] = {}
    assert [file.name for file in draw([run], tmp_path)] == ["throughput.png"]


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no throughput"):
        draw([result(1.0) | {"figures": {}, "series": {}}], tmp_path)
