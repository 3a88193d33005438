"""Figures are those of the numbers; CPU and memory are those of the processes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from shardrt.bench import processes
from shardrt.bench.figures import timing_figures
from shardrt.bench.footprint import footprint
from shardrt.bench.latencies import HOUR_US, Latencies
from shardrt.bench.loops import Timing
from shardrt.bench.metering import CpuMeter, child_role, this_process
from shardrt.bench.processes import Process
from shardrt.store.factory import make_store

if TYPE_CHECKING:
    from pathlib import Path


def test_percentiles_are_those_of_the_values_to_three_digits() -> None:
    latencies = Latencies(number / 1000 for number in range(1, 101))
    assert latencies.figures() == pytest.approx(
        {"p50": 50, "p90": 90, "p99": 99, "p99_9": 100, "max": 100}, rel=0.001
    )


def test_durations_out_of_range_count_as_the_nearest() -> None:
    latencies = Latencies([0.0, 1e9])
    assert latencies.ms(0.0) == 0.001
    assert latencies.ms(100.0) == pytest.approx(HOUR_US / 1000, rel=0.001)


def test_histograms_of_several_runs_add_up() -> None:
    runs = [Latencies([0.001]), Latencies([0.003, 0.005])]
    total = Latencies.decode(*(run.encode() for run in runs))
    assert len(total) == 3
    assert total.ms(50.0) == pytest.approx(3.0, rel=0.001)


def test_figures_of_a_loop() -> None:
    figures = timing_figures(Timing(Latencies([0.001, 0.003]), seconds=2.0), activities=5)
    assert (figures["instances_per_s"], figures["activities_per_s"]) == (1.0, 5.0)
    assert figures["latency_ms"]["max"] == pytest.approx(3.0, rel=0.001)
    assert "starts_late_ms_max" not in figures


async def footprint_of_new(store_url: str) -> dict[str, int]:
    store = make_store(store_url, unsafe=True)
    await store.open()
    try:
        await store.create(4)
        return footprint(store_url)
    finally:
        await store.close()


def test_rows_and_bytes_of_a_hub_in_postgres(hub_dsn: str) -> None:
    found = asyncio.run(footprint_of_new(hub_dsn))
    assert found.pop("bytes") > 0
    assert found == {"instances_rows": 0, "history_rows": 0, "journal_rows": 0}


def test_rows_and_bytes_of_a_hub_in_a_file(tmp_path: Path) -> None:
    found = asyncio.run(footprint_of_new(f"sqlite:///{tmp_path / 'hub.db'}"))
    assert found.pop("bytes") > 0
    assert found == {"instances_rows": 0, "history_rows": 0, "journal_rows": 0}


def test_a_store_in_memory_has_no_footprint() -> None:
    assert footprint("memory://") == {}


def test_this_process_is_metered() -> None:
    meter = CpuMeter([this_process("me")])
    meter.start()
    sum(range(1_000_000))
    meter.read()
    assert meter.cpu_us()["me"] > 0
    assert meter.memory()["me"] > 1_000_000


def test_cpu_of_threads_that_have_ended_counts() -> None:
    def work() -> None:
        until_us = time.thread_time_ns() + 50_000_000
        while time.thread_time_ns() < until_us:
            pass

    before = processes.snapshot()[os.getpid()].cpu_us
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert processes.snapshot()[os.getpid()].cpu_us - before >= 20_000


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
