"""What is said of take-overs is what was measured."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.takeover.__main__ import Event, figures, measure, table_of
from benchmarks.takeover.probing import is_even, is_there, partitions_of
from shardrt.bench.options import Options
from shardrt.store.base import Host, Ownership, View


def view(*owners: str | None, expires_at: int = 2) -> View:
    partitions = tuple(Ownership(n, owner, 1, 0, 0) for n, owner in enumerate(owners))
    return View(1, (Host("a", "1", "http://a", 1, expires_at=expires_at),), partitions)


def test_who_owns_what_is_read_from_the_store() -> None:
    assert partitions_of(view("a/1", "b/1", "a/2", "aa/1", None), "a") == {0, 2}
    assert is_there(view(), "a")
    assert not is_there(view(expires_at=1), "a")
    assert not is_there(view(), "b")


@pytest.mark.parametrize(
    ("owners", "even"),
    [
        (("a/1", "b/1", "a/1"), True),
        (("a/1", "b/1", "a/1", "a/1"), False),
        (("a/1", "b/1", None), False),
        (("a/1", "b/1", "c/1"), False),
    ],
)
def test_shares_are_even_if_they_differ_by_one_at_most(
    owners: tuple[str | None, ...], even: bool
) -> None:
    assert is_even(view(*owners), "ab") == even


def test_events_of_a_kind_are_summed_up() -> None:
    events = [
        Event("kill -9", [1.0, 3.0], 2.5, 10, ["ConnectionLost: x"]),
        Event("join", [0.5], 0.1, 5, []),
        Event("kill -9", [2.0, 4.0], 4.5, 20, []),
    ]
    killed, stopped, joined = figures(events, ttl_s=10)
    assert killed == {
        "event": "kill -9",
        "times": 2,
        "partitions_moved": 4,
        "p50_s": 3.0,
        "p99_s": 4.0,
        "max_s": 4.0,
        "target_s": 15.0,
        "longest_call_s": 4.5,
        "requests": 30,
        "failed": 1,
    }
    assert (stopped["times"], joined["times"]) == (0, 1)
    table = table_of([killed, stopped, joined])
    assert [next(iter(column.cells)) for column in table.columns] == [
        *("kill -9", "2", "4", "3.0", "4.0", "4.0", "15", "4.5", "30", "1")
    ]


@pytest.mark.pg
@pytest.mark.proc
@pytest.mark.slow
def test_two_hosts_are_measured(hub_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDRT_STORE_UNSAFE", "true")
    options = Options(n=1, concurrency=1, warmup=0, shards=1, partitions=4)
    events = asyncio.run(measure(hub_dsn, "ab", options=options, ttl_s=2.0, unsafe=True))
    assert [event.what for event in events] == ["kill -9", "join", "SIGTERM", "join"]
    assert [len(event.seconds) for event in events] == [2, 2, 2, 2]
    assert all(event.requests for event in events)
