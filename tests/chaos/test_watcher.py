"""The watcher and the witness are tested: what finds nothing must be able to find it."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from shardrt.store.base import Append, Host, Ownership, View
from shardrt.store.postgres.store import PostgresStore
from shardrt.testing.postgres import with_parameters
from tests.chaos.watcher import SLACK_S, Orphaned, Watcher
from tests.chaos.witness import Witness
from tests.loops import in_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECOND = 1_000_000
TTL_S = 2.0
FOREVER = 10**12


def view(now_s: float, *owners: str | None, epoch: int = 1, until_s: float = 100.0) -> View:
    return View(
        now=round(now_s * SECOND),
        hosts=tuple(
            Host(name, "1", f"http://{name}", 1, expires_at=round(until_s * SECOND))
            for name in ("a", "b")
        ),
        partitions=tuple(
            Ownership(number, owner, epoch, 0, 0) for number, owner in enumerate(owners)
        ),
    )


def test_partitions_of_who_was_struck_have_no_owner_until_another_has_them() -> None:
    watcher = Watcher(TTL_S)
    watcher.look(view(1, "a/1", "b/1"))
    watcher.strike("kill a", watcher.owner_of("a"))
    watcher.look(view(2, "a/1", "b/1"))
    watcher.look(view(5, "b/1", "b/1"))
    assert watcher.orphaned == [Orphaned(0, 3.0, "kill a")]
    assert watcher.faults() == []


def test_no_owner_and_a_lease_that_is_over_are_the_same() -> None:
    watcher = Watcher(TTL_S)
    watcher.look(view(1, None, "b/1"))
    watcher.look(view(2, "a/1", "b/1", until_s=1.5))
    watcher.look(view(4, "a/1", "b/1"))
    assert watcher.orphaned == [Orphaned(0, 3.0, "start"), Orphaned(1, 2.0, "start")]


def test_what_takes_too_long_is_a_fault_from_the_last_blow_on() -> None:
    watcher = Watcher(TTL_S)
    watcher.look(view(1, None, None))
    watcher.look(view(2, None, None))
    watcher.strike("kill two")
    watcher.look(view(2 + TTL_S + SLACK_S, "a/1", None))
    assert watcher.faults() == ["partition 1: has no owner"]
    watcher.look(view(2.1 + TTL_S + SLACK_S, "a/1", "b/1"))
    assert watcher.faults() == ["partition 1: no owner for 7.1 s (kill two)"]


def test_a_host_serves_once_it_has_committed_to_what_it_owns() -> None:
    watcher = Watcher(TTL_S)
    seen = []
    for owner, epoch, lsn in (("a", 1, 5), ("a", 1, 6), ("b", 2, 7), ("b", 2, 7), ("b", 2, 8)):
        row = Ownership(0, f"{owner}/1", epoch, lsn, 0)
        watcher.look(View(1, view(1).hosts, (row,)))
        seen.append((watcher.served_by("a"), watcher.served_by("b")))
    assert seen == [(0, 0), (1, 0), (0, 0), (0, 0), (0, 1)]


@asynccontextmanager
async def hub_of(dsn: str) -> AsyncIterator[tuple[Witness, PostgresStore, PostgresStore]]:
    """Yield a witness, and the stores of two hosts: `a`, which owns partition 0, and `b`."""
    stores = [PostgresStore(with_parameters(dsn, application_name=n), unsafe=True) for n in "ab"]
    for store in stores:
        await store.open()
    await stores[0].create(1)
    (schema,) = parse_qs(urlsplit(dsn).query)["schema"]
    witness = Witness(dsn.partition("?")[0], schema)
    witness.install()
    await stores[0].renew(Host("a", "1", "", 1), FOREVER)
    await stores[0].claim(0, 0, "a/1")
    try:
        yield witness, stores[0], stores[1]
    finally:
        for store in stores:
            await store.close()


@in_loop
async def test_writes_of_the_owner_are_right(hub_dsn: str) -> None:
    async with hub_of(hub_dsn) as (witness, a, _):
        assert await a.append([Append(0, 1, 1, b"x")])
        assert witness.faults() == []


@in_loop
async def test_a_write_of_somebody_else_is_found(hub_dsn: str) -> None:
    async with hub_of(hub_dsn) as (witness, a, b):
        for lsn, store in enumerate((a, b, a), 1):
            assert await store.append([Append(0, 1, lsn, b"x")])
        assert witness.faults() == [
            "partition 0 epoch 1 of a/1: 1 writes of b",
            "partition 0 epoch 1: 3 turns of 2 writers",
        ]


@in_loop
async def test_refused_writes_are_counted(hub_dsn: str) -> None:
    async with hub_of(hub_dsn) as (witness, a, b):
        await a.claim(0, 1, "a/1")
        assert not await a.append([Append(0, 1, 1, b"x")])
        assert not await b.append([Append(0, 1, 1, b"x")])
        assert not await a.release(0, 1)
        counts: Counter[str] = Counter()
        witness.count(counts)
        assert counts["commits refused"] == 2
        assert witness.faults() == []


@in_loop
async def test_a_ghost_that_is_heard_is_a_fault(hub_dsn: str) -> None:
    async with hub_of(hub_dsn) as (_, a, b):
        watcher = Watcher(TTL_S)
        now = await a.view()
        await a.claim(0, 1, "a/1")
        await watcher.haunt(b, now, await a.view())
        assert (watcher.takeovers, watcher.stale, watcher.stale_accepted) == (1, 2, [])
        # As if the store did not look at epochs.
        older = View(now.now, now.hosts, (Ownership(0, "a/1", 2, 0, 0),))
        newer = View(now.now, now.hosts, (Ownership(0, "a/1", 3, 0, 0),))
        await watcher.haunt(b, older, newer)
        assert watcher.faults() == [
            "partition 0 epoch 2: a write of an old owner was accepted",
        ]
