"""Every workload runs small and gets its answers; the figures are those of the numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import processes
from benchmarks.closed_loop import Timing
from benchmarks.metering import CpuMeter, child_role, this_process
from benchmarks.processes import Process
from benchmarks.report import latency_figures, quantile, timing_figures
from benchmarks.workloads import WORKLOADS
from tests.serving import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RUN_TIMEOUT_S = 50.0


@pytest.mark.slow
@pytest.mark.proc
@pytest.mark.parametrize(
    ("workload", "mode"),
    [*((name, "embedded") for name in sorted(WORKLOADS)), ("hello", "serve")],
)
def test_a_workload_runs_and_reports(workload: str, mode: str, tmp_path: Path) -> None:
    options = ["--n", "20", "--mode", mode, "--idle-s", "0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", workload, *options, *("--partitions", "4")],
        check=False,
        cwd=ROOT,
        env=os.environ | {"SHARDRT_BENCH_STORE": f"sqlite:///{tmp_path / 'hub.db'}"},
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["workload"], report["n"]) == (workload, 20)
    assert report["settings"]["store"] == "sqlite"


def test_a_quantile_is_one_of_the_values() -> None:
    ordered = [1.0, 2.0, 3.0, 4.0]
    assert [quantile(ordered, q) for q in (0.01, 0.5, 0.51, 1.0)] == [1.0, 2.0, 3.0, 4.0]


def test_figures_of_a_loop() -> None:
    figures = timing_figures(Timing(2.0, [0.001, 0.003]), activities=5)
    assert (figures["instances_per_s"], figures["activities_per_s"]) == (1.0, 5.0)
    assert latency_figures([0.001, 0.003]) == {"p50": 1.0, "p90": 3.0, "p99": 3.0, "max": 3.0}


def test_this_process_is_metered() -> None:
    meter = CpuMeter([this_process("me")])
    meter.start()
    sum(range(1_000_000))
    meter.read()
    assert meter.cpu_us()["me"] > 0
    assert meter.memory()["me"] > 1_000_000


def test_descendants_are_found_at_any_depth() -> None:
    family = {pid: Process(pid, parent, "", 0) for pid, parent in [(1, 0), (2, 1), (3, 2), (9, 0)]}
    assert {process.pid for process in processes.descendants(family, 1)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("python -P -m shardrt.host.process 5 77", "shard"),
        ("python -P -m shardrt.http.process 5 77", "gateway"),
        ("python -c something", "other"),
    ],
)
def test_children_are_known_by_what_they_run(command: str, role: str) -> None:
    assert child_role(Process(1, 0, command, 0)) == role


@pytest.mark.parametrize(("text", "us"), [("0:01.50", 1_500_000), ("1-01:00:00", 90_000_000_000)])
def test_clocks_of_ps_are_read(text: str, us: int) -> None:
    assert processes.clock_us(text) == us
