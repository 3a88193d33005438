"""Empty hubs of each kind of store, and short ways to make rows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from shardrt.store.base import Append, Checkpoint, Host, InstanceKey, InstanceRow
from shardrt.store.memory import MemoryStore
from shardrt.store.postgres.store import PostgresStore
from shardrt.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import TypeVar

    from shardrt.store.base import Store

    T = TypeVar("T")

PARTITIONS = 4
LONG_US = 60_000_000
EXPIRED_US = -1
"""A lease of this length is over when it starts: database time needs no waiting for."""

_names = itertools.count(1)


class Stores:
    """Stores on one hub, as several processes would open them. Closed after the test."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self._opened: list[Store] = []

    def make(self) -> Store:
        match self.kind:
            case "memory":
                return MemoryStore.named(self.url)
            case "sqlite":
                return SqliteStore(self.url)
            case _:
                return PostgresStore(self.url, unsafe=True)

    async def bare(self) -> Store:
        """Return an open store on what may not be a hub yet."""
        store = self.make()
        await store.open()
        self._opened.append(store)
        return store

    async def open(self) -> Store:
        """Return an open store on the hub."""
        store = await self.bare()
        await store.create(PARTITIONS)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


def memory_url() -> str:
    return f"memory://test-{next(_names)}"


def keys(partition: int, instance_ids: Iterable[str]) -> list[InstanceKey]:
    return [InstanceKey(partition, each) for each in instance_ids]


async def owned(store: Store, partition: int = 0, owner: str = "host/1") -> int:
    """Claim a partition whatever its epoch; return the new one."""
    view = await store.view()
    epoch = await store.claim(partition, view.partitions[partition].epoch, owner)
    assert epoch is not None
    return epoch


async def taken_over(store: Store, partition: int = 0) -> int:
    """Let another host take a partition; return the epoch."""
    return await owned(store, partition, "usurper/1")


async def appended(store: Store, epoch: int, *records: bytes, partition: int = 0) -> int:
    """Append records one by one; return the commit LSN."""
    _, lsn = await store.position(partition)
    for lsn, record in enumerate(records, lsn + 1):  # noqa: B020
        assert await store.append([Append(partition, epoch, lsn, record)]) == {partition}
    return lsn


def host(host_id: str = "host", incarnation: str = "1") -> Host:
    return Host(host_id, incarnation, f"http://{host_id}", 2, version="0.1")


def row(instance_id: str = "a", **changes: object) -> InstanceRow:
    values: dict[str, object] = {
        "instance_id": instance_id,
        "execution_id": "e1",
        "name": "hello",
        "version": None,
        "status": "Running",
        "created_at": 1_000,
        "updated_at": 2_000,
        "completed_at": None,
        "parent_id": None,
        "tags": None,
        "next_due": None,
        "active": False,
        "state": b"{}",
    }
    return InstanceRow(**{**values, **changes})  # type: ignore[arg-type]


def checkpoint(epoch: int, lsn: int, **changes: object) -> Checkpoint:
    values: dict[str, object] = {"partition": 0, "state": b"state"}
    return Checkpoint(epoch=epoch, lsn=lsn, **{**values, **changes})  # type: ignore[arg-type]


async def collect(stream: AsyncIterator[T]) -> list[T]:
    return [each async for each in stream]
