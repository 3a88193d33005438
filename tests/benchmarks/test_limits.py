"""What is measured beside the workloads still fits to what it is compared with."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from benchmarks.limits import coroutines
from benchmarks.limits.commits import run_bare
from benchmarks.limits.journals import Journals
from benchmarks.limits.records import Size, costs, further, main, measure
from benchmarks.peers.__main__ import Measured, table_of
from shardrt.store.factory import make_store

if TYPE_CHECKING:
    import pytest

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
