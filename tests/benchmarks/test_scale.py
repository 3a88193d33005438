"""Every part of the scale runs small, and what is said of its figures is what they say."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.scale.parts import PARTS, SMALL, further
from benchmarks.scale.turns import at_once, in_turns
from benchmarks.scale.verdicts import said, table_of, verdicts
from shardrt.bench import bench
from shardrt.bench.measuring import measure
from shardrt.bench.options import Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.scale.turns import Figures, Load
    from benchmarks.scale.verdicts import Row


def test_a_cost_is_flat_if_it_grows_by_a_fifth_at_most() -> None:
    rows: list[Row] = [{"x": 1, "a": 10.0, "b": None}, {"x": 2, "a": 12.0, "b": 1.0}]
    rows.append({"x": 3, "a": 11.0, "b": 1.3})
    found = verdicts(rows, ["a", "b"])
    assert [(each["cost"], each["growth"], each["flat"]) for each in found] == [
        ("a", 0.2, True),
        ("b", 0.3, False),
    ]
    assert said(found[1]) == "b is NOT flat: the highest is 30% above the lowest (20% are flat)"
    assert [list(column.cells) for column in table_of(rows).columns][2] == ["-", "1", "1.3"]


def test_one_row_says_nothing_of_growth() -> None:
    assert verdicts([{"x": 1, "a": 10.0}], ["a"]) == []


def test_a_further_step_is_what_a_longer_instance_costs_more() -> None:
    short: Row = {"steps": 10, "cpu_us_per_instance": 300.0, "rest": None}
    long: Row = {"steps": 110, "cpu_us_per_instance": 1300.0, "rest": None}
    assert further(short, long) == 10.0


def test_hubs_are_loaded_in_turns_and_each_has_its_median() -> None:
    loaded: list[int] = []
    is_open: set[int] = set()

    @asynccontextmanager
    async def hub(value: int, *costs: float) -> AsyncIterator[Load]:
        left = list(costs)
        is_open.add(value)

        async def load() -> Figures:
            assert is_open == {1, 2}
            loaded.append(value)
            return {"cost": left.pop(0), "rest": None}

        yield load
        is_open.discard(value)

    hubs = {1: hub(1, 5.0, 9.0, 1.0), 2: hub(2, 7.0, 7.0, 8.0)}
    rows = asyncio.run(in_turns(3, hubs, lambda value, figures: {"x": value, **figures}, "cost"))
    assert loaded == [1, 2] * 3
    assert rows == [
        {"x": 1, "cost": 5.0, "rest": None, "lowest": 1.0, "highest": 9.0},
        {"x": 2, "cost": 7.0, "rest": None, "lowest": 7.0, "highest": 8.0},
    ]
    assert not is_open


def test_hubs_that_are_loaded_at_once_share_a_client() -> None:
    async def load() -> Figures:
        cpu = {"client": 30.0, "shard": 100.0, "total": 130.0}
        written = {"commits": 0.5}
        return {"instances_per_s": 10.0, "cpu_us_per_instance": cpu, "store_per_instance": written}

    figures = asyncio.run(at_once([load, load, load])())
    assert figures["instances_per_s"] == 30.0
    assert figures["cpu_us_per_instance"]["total"] == 110.0
    assert figures["store_per_instance"] == {"commits": 0.5}


@pytest.mark.slow
@pytest.mark.proc
@pytest.mark.parametrize("name", PARTS)
def test_a_part_runs_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WRITE_BEHIND_S", 0.0)
    monkeypatch.setattr("shardrt.bench.workloads.parked.WRITE_BEHIND_S", 0.0)
    monkeypatch.setattr("shardrt.bench.workloads.recovery.LOAD_S", 0.1)
    part = PARTS[name]
    for value in part.small:
        size = SMALL.in_store(f"sqlite:///{tmp_path / str(value)}.db")
        (row,) = asyncio.run(part.run(size, [value]))
        assert next(iter(row.values())) == value
        assert set(part.flat) <= set(row)


@pytest.mark.slow
@pytest.mark.proc
def test_an_overload_is_counted(tmp_path: Path) -> None:
    """So little that nothing is refused: all of it ends."""
    options = Options(
        n=10,
        concurrency=2,
        warmup=0,
        sizes={"factor": 0.5, "offer_s": 0.5},
        store=f"sqlite:///{tmp_path / 'hub.db'}",
    )
    figures: dict[str, Any] = asyncio.run(measure("overload", options))["figures"]
    assert figures["refused"] == 0
    assert figures["accepted"] == round(figures["offered_per_s"] * 0.5)
    assert figures["memory_mb"]["shard"]["peak"] > 0
