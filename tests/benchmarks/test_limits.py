"""What is measured beside the workloads still fits to what it is compared with."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from benchmarks.limits import coroutines
from benchmarks.limits.commits import run_bare
from benchmarks.peers.__main__ import Measured, table_of

if TYPE_CHECKING:
    import pytest


def test_orchestrators_run_on_a_bare_loop(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(coroutines.main(20, steps=3, width=3))
    measured = [json.loads(line)["measured"] for line in capsys.readouterr().out.splitlines()]
    assert measured == ["hello", "sequence of 3", "fanout of 3"]


def test_the_same_bytes_are_committed_without_a_hub(hub_dsn: str) -> None:
    dsn = hub_dsn.partition("?")[0]
    assert run_bare(dsn, [[(1, 1, 10), (2, 1, 20)], [(1, 2, 5)]]) > 0


def test_peers_are_compared_with_the_first() -> None:
    table = table_of({"a": [Measured(10, 2, 1), Measured(30, 2, 1)], "b": [Measured(5, 4, 1)]})
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows == [
        ("a", "20 (10-30)", "1", "2", "1", "1", "1"),
        ("b", "5", "0.25", "4", "2", "1", "1"),
    ]
