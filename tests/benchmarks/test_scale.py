"""Every part of the scale runs small, and what is said of its figures is what they say."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from benchmarks.scale.__main__ import main
from benchmarks.scale.hubs import seated, split
from benchmarks.scale.parts import COMPARED, PARTS, SMALL, further, of, of_apart
from benchmarks.scale.turns import beside, in_turns
from benchmarks.scale.verdicts import said, table_of, verdicts
from shardrt.bench.loops import closed_loop
from shardrt.bench.measuring import measure
from shardrt.bench.options import Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.scale.turns import Figures, Load
    from benchmarks.scale.verdicts import Row
    from shardrt.bench.loops import RunOne


def test_a_cost_is_flat_if_it_grows_by_a_fifth_at_most() -> None:
    rows: list[Row] = [{"x": 1, "a": 10.0, "b": None}, {"x": 2, "a": 12.0, "b": 1.0}]
    rows.append({"x": 3, "a": 11.0, "b": 1.3})
    found = verdicts(rows, ["a", "b"])
    assert found == [
        {"cost": "a", "growth": 0.2, "above": "the lowest", "flat": True},
        {"cost": "b", "growth": 0.3, "above": "the lowest", "flat": False},
    ]
    assert said(found[1]) == "b is NOT flat: the highest is 30% above the lowest (20% are flat)"
    assert [list(column.cells) for column in table_of(rows).columns][2] == ["-", "1", "1.3"]


def test_a_share_is_flat_if_it_is_a_fifth_more_than_one_at_most() -> None:
    """However it compares with the others."""
    rows: list[Row] = [{"x": 1, "a": 1.1, "b": 1.25, "c": 0.5}]
    rows.append({"x": 2, "a": 0.6, "b": 1.25, "c": 0.9})
    found = verdicts(rows, ["x"], ["a", "b", "c"])[1:]
    assert [(each["growth"], each["flat"]) for each in found] == [
        (0.1, True),
        (0.25, False),
        (-0.1, True),
    ]
    assert said(found[1]) == "b is NOT flat: the highest is 25% above 1 (20% are flat)"
    assert said(found[2]) == "c is flat: the highest is 10% below 1 (20% are flat)"


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


def test_a_hub_and_its_control_are_loaded_one_after_the_other_and_the_other_way_round() -> None:
    loaded: list[str] = []

    @asynccontextmanager
    async def hub(name: str) -> AsyncIterator[Load]:
        async def load() -> Figures:
            loaded.append(name)
            return {"name": name}

        yield load

    async def twice() -> list[Figures]:
        async with beside(hub("a"), hub("b")) as load:
            return [await load() for _ in range(2)]

    assert asyncio.run(twice()) == [{"name": "a", "apart": {"name": "b"}}] * 2
    assert loaded == ["a", "b", "b", "a"]


def test_the_share_is_that_within_a_round() -> None:
    """The machine is never as fast twice: that of the medians would be 0.67."""
    costs = iter([(100.0, 100.0), (200.0, 400.0), (300.0, 300.0)])

    def figures_of(cost: float) -> Figures:
        return {"instances_per_s": 1.0, "cpu_us_per_instance": {"shard": cost / 2, "total": cost}}

    @asynccontextmanager
    async def hub() -> AsyncIterator[Load]:
        async def load() -> Figures:
            one, apart = next(costs)
            return figures_of(one) | {"apart": figures_of(apart)}

        yield load

    (row,) = asyncio.run(in_turns(3, {2: hub()}, of_apart(of("shards")), *COMPARED))
    assert (row["cpu_us_per_hello"], row["lowest"], row["highest"]) == (200.0, 100.0, 300.0)
    assert (row["apart_us_per_hello"], row["apart_shard_us_per_hello"]) == (300.0, 150.0)
    shares = (row["of_apart"], row["of_apart_lowest"], row["of_apart_highest"])
    assert shares == (1.0, 0.5, 1.0)


def test_hubs_apart_have_as_many_in_flight_each() -> None:
    """Also if one is faster than another, which then runs more; it is so many in all."""
    in_flight, ended, most = [0, 0, 0], [0, 0, 0], [0, 0, 0]

    def run_in(hub: int) -> RunOne:
        async def run_one(_: int) -> None:
            in_flight[hub] += 1
            most[hub] = max(most[hub], in_flight[hub])
            for _ in range(1 + 4 * hub):
                await asyncio.sleep(0)
            in_flight[hub] -= 1
            ended[hub] += 1

        return run_one

    runs = [run_in(hub) for hub in range(3)]
    asyncio.run(closed_loop(seated(runs, 12), 120, 12, lambda: None))
    assert most == [4, 4, 4]
    assert sum(ended) == 120
    assert ended[0] > ended[1] > ended[2] > 0


def test_what_one_hub_has_is_split_between_those_apart() -> None:
    assert split(32, 3) == [11, 11, 10]
    assert split(32, 8) == [4] * 8


@pytest.mark.parametrize("store", ["sqlite:///hub.db", "postgresql://x/y?schema=one"])
def test_hubs_side_by_side_do_not_share_a_store(store: str) -> None:
    result = CliRunner().invoke(main, ["--part", "shards", "--small", "--store", store])
    assert result.exit_code == 2
    assert "each hub has its own" in result.output


@pytest.fixture
def store(pg_dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Postgres in which each hub has a schema of its own, and nobody waits for statistics."""
    monkeypatch.setenv("SHARDRT_STORE_UNSAFE", "true")
    for module in ("bench", "workloads.parked"):
        monkeypatch.setattr(f"shardrt.bench.{module}.WRITE_BEHIND_S", 0.0)
        monkeypatch.setattr(f"shardrt.bench.{module}.REPORT_DELAY_S", 0.0)
    return pg_dsn


@pytest.mark.slow
@pytest.mark.proc
@pytest.mark.parametrize("name", PARTS)
def test_a_part_runs_small(name: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardrt.bench.workloads.recovery.LOAD_S", 0.1)
    part = PARTS[name]
    rows = asyncio.run(part.run(SMALL.in_store(store), part.small))
    assert [next(iter(row.values())) for row in rows] == list(part.small)
    assert all({*part.flat, *part.shares} <= set(row) for row in rows)


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
