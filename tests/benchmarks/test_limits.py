"""What is measured beside the workloads still fits to what it is compared with."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from benchmarks.limits import coroutines, pauses
from benchmarks.limits.commits import run_bare
from benchmarks.limits.journals import Journals
from benchmarks.limits.path import __main__ as path
from benchmarks.limits.records import Size, costs, further, main, measure
from benchmarks.peers.__main__ import Measured, table_of
from shardrt.bench import bench
from shardrt.bench.errors import HostFailed
from shardrt.bench.options import Options
from shardrt.bench.workloads.hello import EXPECTED
from shardrt.store.factory import make_store

if TYPE_CHECKING:
    from benchmarks.scale.verdicts import Row

SIZE = Size(steps=8, step_bytes=100, commits=10, rounds=2)


def test_orchestrators_run_on_a_bare_loop(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(coroutines.main(20, steps=3, width=3))
    measured = [json.loads(line)["measured"] for line in capsys.readouterr().out.splitlines()]
    assert measured == ["hello", "sequence of 3", "fanout of 3"]


def test_the_same_bytes_are_committed_without_a_hub(hub_dsn: str) -> None:
    dsn = hub_dsn.partition("?")[0]
    assert run_bare(dsn, [[(1, 1, 10), (2, 1, 20)], [(1, 2, 5)]]) > 0


def test_each_append_has_a_record_for_each_journal_until_they_are_cut() -> None:
    async def appended() -> list[list[int]]:
        hub = make_store("memory://journals")
        await hub.open()
        await hub.create(3)
        journals = Journals(hub, 2, record_bytes=70)
        await journals.claim()
        await journals.append(5)
        found = [[len(record) async for _, record in hub.read(each, 0)] for each in range(3)]
        await journals.cut()
        left = [[len(record) async for _, record in hub.read(each, 0)] for each in range(2)]
        await hub.close()
        return found + left

    assert asyncio.run(appended()) == [[70] * 5, [70] * 5, [], [], []]


def test_a_record_costs_its_share_of_a_commit() -> None:
    figures = {"seconds": 2.0, "cpu_us": {"client": 400, "postgres backends": 800}, "wal": 8000}
    row = costs(SIZE, 2, figures)
    assert row == {
        "partitions": 2,
        "steps_per_record": 4,
        "commits_per_s": 5.0,
        "steps_per_s": 40,
        "client_us_per_record": 20.0,
        "client_us_per_step": 5.0,
        "backends_us_per_record": 40.0,
        "backends_us_per_step": 10.0,
        "us_per_step": 15.0,
        "wal_bytes_per_step": 100.0,
    }
    # A commit of 8 steps costs 48 µs more, in 6 more records.
    more: Row = {"partitions": 8, "backends_us_per_step": 16.0}
    assert further(SIZE, row, more, "backends") == 8.0
    assert further(SIZE, None, row, "backends") is None


def test_records_are_measured_over_numbers_of_partitions(pg_dsn: str) -> None:
    rows = asyncio.run(measure(SIZE, [2, 8], pg_dsn, unsafe=True))
    assert [(row["partitions"], row["steps_per_record"]) for row in rows] == [(2, 4), (8, 1)]
    assert all((row["wal_bytes_per_step"] or 0) > 0 for row in rows)
    assert rows[0]["client_us_per_further_record"] is None
    assert rows[1]["client_us_per_further_record"] is not None


@pytest.mark.slow
@pytest.mark.proc
def test_the_bare_path_commits_each_step_of_each_hello(
    pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is written behind, and when the server tells, is not looked at here.
    monkeypatch.setattr(bench, "WRITE_BEHIND_S", 0.0)
    monkeypatch.setattr(bench, "REPORT_DELAY_S", 0.0)

    async def measured() -> list[dict[str, Any]]:
        async with path.bare_path(Options(n=20, concurrency=5, warmup=5), pg_dsn) as bare:
            return [await bare.measured(20, rate) for rate in (None, 200.0)]

    with psycopg.connect(pg_dsn, autocommit=True) as connection:
        try:
            full, half = asyncio.run(measured())
            events = [
                event
                for (record,) in connection.execute("SELECT record FROM bare_path")
                for event in json.loads(record)
            ]
        finally:
            connection.execute("DROP TABLE IF EXISTS bare_path")
    assert full["instances_per_s"] > 0
    assert half["instances_per_s"] <= 20 / (19 / 200), "the last of 20 starts begins after 95 ms"
    assert full["cpu_us_per_instance"]["worker"] > 0
    # Both warmed up, and each had numbers from 0 on.
    asked = Counter(event[0] for event in events if len(event) == 4)
    ended = [event for event in events if len(event) == 2]
    assert asked == Counter({n: 20 if n < 5 else 10 for n in range(20)})
    assert ended == [[event[0], EXPECTED] for event in ended]
    assert len(ended) == 2 * 20 + 2 * 5


def test_the_hub_is_compared_with_the_bare_path_within_each_round() -> None:
    def run(value: float) -> dict[str, Any]:
        return {
            "instances_per_s": value,
            "latency_ms": {"p50": value, "p99": value},
            "cpu_us_per_instance": {"total": value},
            "store_per_instance": {"commits": value},
        }

    found = {("half", "hub"): [run(30), run(80)], ("half", "bare"): [run(10), run(40)]}
    table = path.table_of(found)
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows[0] == ("half", "hello per s", "55 (30-80)", "25 (10-40)", "2.50")
    assert len(rows) == 5


def test_whoever_waits_for_a_worker_that_has_ended_learns_of_it() -> None:
    async def main() -> None:
        caller = path.Caller()
        caller.links = [Silent(), Silent()]
        running = asyncio.ensure_future(caller.run(7))
        await asyncio.sleep(0)
        caller.on_closed()
        with pytest.raises(HostFailed, match="worker of the bare path has ended"):
            await running
        with pytest.raises(HostFailed):
            await caller.run(8)

    asyncio.run(main())


def test_both_are_offered_half_of_what_the_hub_carried_in_that_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[tuple[str, int, float | None]] = []
    carried = iter([100.0, 300.0])

    class Subject:
        def __init__(self, name: str) -> None:
            self.name = name

        async def measured(self, n: int, rate: float | None) -> dict[str, Any]:
            runs.append((self.name, n, rate))
            is_hub_at_full = self.name == "hub" and rate is None
            return {"instances_per_s": next(carried) if is_hub_at_full else 9_999.0}

    def yields(name: str) -> Any:
        return lambda *_: nullcontext(Subject(name))

    monkeypatch.setattr(path, "store", lambda _: nullcontext("postgresql://"))
    monkeypatch.setattr(path, "hub", yields("hub"))
    monkeypatch.setattr(path, "bare_path", yields("bare"))
    found = asyncio.run(path.measure(Options(n=10, concurrency=1, warmup=0), 2))
    assert runs == [
        ("hub", 10, None),
        ("bare", 50, None),
        ("hub", 10, 50.0),
        ("bare", 10, 50.0),
        ("bare", 50, None),
        ("hub", 10, None),
        ("bare", 10, 150.0),
        ("hub", 10, 150.0),
    ]
    assert {each: len(of) for each, of in found.items()} == dict.fromkeys(found, 2)


class Silent:
    """A link to somebody who never answers."""

    is_open = True
    is_congested = False

    def send(self, message: Any) -> None:
        assert message == 7

    def close(self) -> None:
        raise AssertionError("not closed by this side")


def test_what_pauses_cost_is_measured_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "VISITING_S", 0.01)
    monkeypatch.setattr(pauses, "HELLOS", 8)
    monkeypatch.setattr(pauses, "PAUSES_MS", (0, 1))
    found = pauses.measure(1, [100], [4])
    table = pauses.table_of(found)
    assert len(found) == 4
    assert all(cost > 0 for costs in found.values() for cost in costs)
    assert [column.header for column in table.columns] == ["CPU", "0 ms", "1 ms"]


def test_records_have_as_many_steps_each() -> None:
    result = CliRunner().invoke(main, ["--values", "3", "--steps", "8"])
    assert result.exit_code == 2
    assert "must divide the 8 steps" in result.output


def test_peers_are_compared_with_the_first() -> None:
    table = table_of({"a": [Measured(10, 2, 1), Measured(30, 2, 1)], "b": [Measured(5, 4, 1)]})
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows == [
        ("a", "20 (10-30)", "1", "2", "1", "1", "1"),
        ("b", "5", "0.25", "4", "2", "1", "1"),
    ]
