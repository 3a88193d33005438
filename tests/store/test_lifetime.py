"""Contract: opening, closing, statistics, and URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardrt.errors import ConfigInvalid, StoreUnavailable
from shardrt.store.base import Append, Filter
from shardrt.store.factory import make_store
from shardrt.store.memory import MemoryStore
from shardrt.store.postgres.store import PostgresStore
from shardrt.store.sqlite.store import SqliteStore
from tests.store.hubs import LONG_US, appended, checkpoint, collect, host, keys, owned, row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.store.base import Store
    from tests.store.hubs import Stores

CALLS: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: store.create(4),
    lambda store: store.renew(host(), LONG_US),
    lambda store: store.view(),
    lambda store: store.claim(0, 0, "a/1"),
    lambda store: store.append([Append(0, 1, 1, b"")]),
    lambda store: store.position(0),
    lambda store: collect(store.read(0, 0)),
    lambda store: store.checkpoint(checkpoint(1, 1)),
    lambda store: store.query(Filter(), limit=1),
]


async def test_a_store_that_is_not_open_is_unavailable(stores: Stores):
    closed = await stores.open()
    await closed.close()
    await closed.close()
    for store in (stores.make(), closed):
        for call in CALLS:
            with pytest.raises(StoreUnavailable):
                await call(store)


async def test_what_was_written_outlives_the_store_object(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    await store.checkpoint(checkpoint(epoch, 1, upserts=[row()]))
    await store.close()
    again = await stores.open()
    assert await again.position(0) == (epoch, 1)
    assert await collect(again.read(0, 0)) == [(1, b"one")]
    assert await again.load(keys(0, ["a"])) == [row()]


async def test_a_hub_has_an_id_that_no_other_has(stores: Stores):
    store, sibling = await stores.bare(), await stores.bare()
    hub = await store.create(4)
    assert hub.id
    for same in (store, sibling):
        assert await same.create(4) == hub
    other = make_store("memory://")
    await other.open()
    assert (await other.create(4)).id not in {"", hub.id}


async def test_statistics_count_what_this_store_did(stores: Stores):
    store, other = await stores.open(), await stores.open()
    epoch = await owned(store)
    before = store.stats()
    assert set(before) == {"commits", "commit_bytes", "checkpoints", "checkpoint_bytes", "queries"}
    await store.append([Append(0, epoch, 1, b"x" * 1000)])
    await store.checkpoint(checkpoint(epoch, 1, upserts=[row(state=b"y" * 100)]))
    after = store.stats()
    assert after["commits"] - before["commits"] == 1
    assert 1000 <= after["commit_bytes"] - before["commit_bytes"] < 1100
    assert after["checkpoints"] - before["checkpoints"] == 1
    assert 100 <= after["checkpoint_bytes"] - before["checkpoint_bytes"] < 200
    assert other.stats()["commits"] == 0


def test_a_url_names_the_kind_of_store():
    assert isinstance(make_store("memory://"), MemoryStore)
    assert isinstance(make_store("sqlite:///hub.db"), SqliteStore)
    assert isinstance(make_store("postgresql://localhost/db"), PostgresStore)
    assert isinstance(make_store("postgres://localhost/db"), PostgresStore)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/db",
        "hub.db",
        "",
        "sqlite://hub.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///hub.db?mode=ro",
        "postgresql://localhost/db?schema=",
        "postgresql://localhost/db?schema=a-b",
        'postgresql://localhost/db?schema=a"b',
        "postgresql://localhost/db?nonsense=1",
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str):
    with pytest.raises(ConfigInvalid, match=r"store\.url"):
        make_store(url)


async def test_memory_stores_share_a_hub_by_name():
    names = ["memory://shared", "memory://shared", "memory://other", "memory://", "memory://"]
    views = []
    for number, name in enumerate(names):
        store = make_store(name)
        await store.open()
        await store.create(0)
        await store.claim(0, 0, f"{number}/1")
        views.append((await store.view()).partitions[0].owner)
    assert views == ["0/1", "0/1", "2/1", "3/1", "4/1"]
