"""Targets are compared with the figures that runs really have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from benchmarks.targets.__main__ import main
from benchmarks.targets.goals import RUNS, TARGETS, rows_of, table_of
from shardrt.bench import bench
from shardrt.bench.catalog import WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_target_is_met_by_the_median() -> None:
    alone = [
        {"latency_ms": {"p50": p50, "p99": 16.0}, "store_per_instance": {"commits": 6.5}}
        for p50 in (4.0, 4.5, 9.0)
    ]
    rows = rows_of({"alone": alone})
    assert [(row["target"], row["bound"], row["measured"], row["met"]) for row in rows] == [
        ("hello alone, p50 ms", "≤ 5", "4.5 (4-9)", True),
        ("hello alone, p99 ms", "≤ 15", "16", False),
        ("commits per hello, alone", "≤ 7", "6.5", True),
    ]
    assert list(table_of(rows).columns[3].cells) == ["yes", "NO", "yes"]


def test_more_is_better_where_it_is() -> None:
    (row, *_) = rows_of({"events": [{"instances_per_s": 4999.0}]})
    assert not row["met"]


def test_every_run_has_a_target_and_a_workload() -> None:
    assert {target.run for target in TARGETS} == set(RUNS)
    assert {run.workload for run in RUNS.values()} <= set(WORKLOADS)


@pytest.mark.slow
@pytest.mark.proc
def test_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WRITE_BEHIND_S", 0.0)
    names = ("full", "embedded", "half")
    chosen = [word for name in names for word in ("--only", name)]
    store = f"sqlite:///{tmp_path / 'hub.db'}"
    # What is written is told of a Postgres only.
    monkeypatch.setattr(
        "benchmarks.targets.goals.TARGETS",
        [target for target in TARGETS if "store" not in target.figure],
    )
    result = CliRunner().invoke(
        main,
        ["--rounds", "1", "--scale", "0.001", "--store", store, "--partitions", "8", *chosen],
    )
    assert result.exit_code == 0, result.output
    assert "hello at half load" in result.stdout
