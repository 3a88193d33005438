"""What a step costs by part: samples are counted where they belong, and commits are told."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.costs.__main__ import rows_of, table_of
from benchmarks.costs.commits import described, trace
from benchmarks.costs.layers import layer_of, shares
from shardrt.core.entries import Arrived, Created, Stepped
from shardrt.core.history import NULL, TaskCompleted, TaskScheduled
from shardrt.core.work import Completed

SHARD = "_main (/x/shardrt/host/child.py:9)"


@pytest.mark.parametrize(
    ("stack", "layer"),
    [
        ([SHARD], "event loop"),
        ([SHARD, "run (/x/asyncio/runners.py:86)"], "event loop"),
        ([SHARD, "a (/x/shardrt/host/turns.py:1)", "b (/x/shardrt/core/ground.py:1)"], "partition"),
        ([SHARD, "a (/x/shardrt/core/codec.py:1)"], "encode"),
        ([SHARD, "a (/x/shardrt/store/postgres/x.py:1)", "b (/x/psycopg/y.py:1)"], "commit"),
        ([SHARD, "a (/x/shardrt/host/checkpointer.py:1)", "b (/x/psycopg/y.py:1)"], "checkpoint"),
        (["a (/x/shardrt/orchestration/loop.py:1)", "b (/x/typing.py:1)"], "coroutine"),
    ],
)
def test_a_stack_belongs_to_its_innermost_layer(stack: list[str], layer: str) -> None:
    assert layer_of(stack) == layer


def test_shares_are_those_of_the_samples() -> None:
    raw = f"{SHARD};a (/x/shardrt/core/ground.py:1) 3\n{SHARD} 1\nnothing\n"
    assert shares(raw) == {"partition": 0.75, "event loop": 0.25}
    assert shares("") == {}


def test_a_layer_costs_its_share_of_the_process() -> None:
    rows = rows_of({"shard": 100.0, "other": 20.0, "total": 120.0}, {"shard": {"a": 0.9, "b": 0.1}})
    assert [(row["process"], row["layer"], row["us"]) for row in rows] == [
        ("shard", "a", 90.0),
        ("shard", "b", 10.0),
        ("other", "", 20.0),
    ]
    assert list(table_of(rows).columns[3].cells) == ["75%", "8%", "17%", "100%"]


def test_a_commit_is_told_by_its_entries() -> None:
    asked = TaskScheduled(task_id=1, name="a", input=NULL)
    entries = [
        Created(0, "i", "e", "name"),
        Stepped(0, "i", 0, (asked,)),
        Arrived("i", TaskCompleted(0, 1, NULL)),
        Stepped(0, "i", 1, (), Completed(NULL)),
    ]
    assert described(entries) == (
        "Created Stepped(TaskScheduled) Arrived(TaskCompleted) Stepped(Completed)"
    )


@pytest.mark.pg
def test_hello_alone_needs_six_appends(hub_dsn: str) -> None:
    """It cannot be fewer: an activity starts after the commit that asks for it."""
    found = asyncio.run(trace(hub_dsn, 3, settle_s=0.0, unsafe=True))
    middle = ["append: Arrived(TaskCompleted) Stepped(TaskScheduled)"] * 4
    assert [each for each in found["the_last"] if each.startswith("append")] == [
        "append: Created Stepped(TaskScheduled)",
        *middle,
        "append: Arrived(TaskCompleted) Stepped(Completed)",
    ]
