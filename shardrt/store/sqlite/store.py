"""The SQLite store: a hub in one file, the embedded default.

Several processes of one machine may share the file. Each store object has a thread that
writes and a thread that reads, so that a long list does not hold up commits. Write-ahead log
and synchronous=FULL: what was committed survives a crash of the process and of the machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from shardrt.errors import ConfigInvalid, EpochFenced, StoreUnavailable
from shardrt.store.base import (
    Append,
    Checkpoint,
    ExecutionKey,
    Filter,
    HistoryChunk,
    Host,
    Hub,
    InstanceKey,
    InstanceRow,
    Ownership,
    Page,
    PartitionHead,
    View,
    Whole,
)
from shardrt.store.clock import wall_clock_us
from shardrt.store.columns import checkpoint_bytes, filter_params, instance_of
from shardrt.store.paging import (
    PAGE_ROWS_MAX,
    START,
    PageSize,
    check_limit,
    check_next,
    decode_token,
    page_of,
)
from shardrt.store.sqlite.checkpoints import write_checkpoint
from shardrt.store.sqlite.hub import create_hub
from shardrt.store.sqlite.statements import SQL
from shardrt.store.sqlite.worker import Worker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Sequence

T = TypeVar("T")


class SqliteStore:
    """A hub in an SQLite file. Implements `Store`."""

    def __init__(self, url: str, now: Callable[[], int] = wall_clock_us) -> None:
        self.url_masked = url
        self._path = parse_url(url)
        self._now = now
        self._writer = Worker(self._path, "shardrt-sqlite-writer", "BEGIN IMMEDIATE")
        self._reader = Worker(self._path, "shardrt-sqlite-reader", "BEGIN")
        self._stats = dict.fromkeys(
            ("commits", "commit_bytes", "checkpoints", "checkpoint_bytes", "queries"), 0
        )

    async def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: cannot make its directory: {error}") from error
        await self._writer.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._writer.stop()
            raise

    async def close(self) -> None:
        await self._writer.stop()
        await self._reader.stop()

    def stats(self) -> dict[str, int]:
        return dict(self._stats)

    # Leases

    async def create(self, partitions: int) -> Hub:
        if partitions < 0:
            raise ConfigInvalid(f"partitions must be at least 1, not {partitions}")
        return await self._writer.run(lambda c: create_hub(c, partitions, str(self._path)))

    async def schema(self) -> int:
        """Return the version of the schema."""
        ((version,),) = await self._fetch("migrations")
        return int(version)

    async def renew(self, host: Host, ttl: int) -> View:
        def work(connection: sqlite3.Connection) -> View:
            now = self._now()
            params = {**msgspec.structs.asdict(host), "now": now, "ttl": ttl}
            if not connection.execute(SQL["renew"], params).rowcount:
                raise EpochFenced(
                    f"host {host.host_id}: another process holds this id "
                    "and its lease is still good"
                )
            connection.execute(SQL["sweep_hosts"], {"now": now})
            return _view(connection, now)

        return await self._write(work)

    async def view(self) -> View:
        return await self._read(lambda connection: _view(connection, self._now()))

    async def claim(self, partition: int, seen_epoch: int, owner: str) -> int | None:
        def work(connection: sqlite3.Connection) -> int | None:
            params = {
                "partition": partition,
                "seen_epoch": seen_epoch,
                "owner": owner,
                "now": self._now(),
            }
            rows = connection.execute(SQL["claim"], params).fetchall()
            return int(rows[0][0]) if rows else None

        return await self._write(work)

    async def release(self, partition: int, epoch: int) -> bool:
        params = {"partition": partition, "epoch": epoch}
        return await self._write(lambda c: c.execute(SQL["release"], params).rowcount > 0)

    async def leave(self, host: Host) -> None:
        owner = f"{host.host_id}/{host.incarnation}"
        # One by one: no transaction of ours ever spans two partitions.
        for partition, epoch in await self._fetch("owned", owner=owner):
            await self.release(partition, epoch)
        params = {"host_id": host.host_id, "incarnation": host.incarnation}
        await self._write(lambda c: c.execute(SQL["leave"], params))

    # Journal

    async def append(self, batch: Sequence[Append]) -> set[int]:
        if not batch:
            return set()
        assert len({a.partition for a in batch}) == len(batch), "one record per partition and batch"

        def work(connection: sqlite3.Connection) -> set[int]:
            done = set()
            for item in batch:
                key = {"partition": item.partition, "epoch": item.epoch, "lsn": item.lsn}
                if connection.execute(SQL["fence_append"], key).rowcount:
                    del key["epoch"]
                    connection.execute(SQL["append"], {**key, "record": item.record})
                    done.add(item.partition)
            return done

        done = await self._writer.run(work)
        self._stats["commits"] += 1
        self._stats["commit_bytes"] += sum(len(item.record) for item in batch)
        return done

    async def position(self, partition: int) -> tuple[int, int]:
        # On the writer: after a cancelled append of ours, and after another process's.
        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            rows = connection.execute(SQL["position"], {"partition": partition}).fetchall()
            if not rows:
                raise StoreUnavailable(f"{self._path}: there is no partition {partition}")
            epoch, lsn = rows[0]
            return epoch, lsn

        return await self._write(work)

    async def read(self, partition: int, after: int) -> AsyncIterator[tuple[int, bytes]]:
        size = PageSize()
        while rows := await self._fetch("read", partition=partition, after=after, rows=size.rows):
            for lsn, record in rows:
                check_next(partition, after + 1, lsn)
                after = lsn
                yield lsn, record
            size.learn([len(record) for _, record in rows])

    # Checkpoints

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        await self._writer.run(lambda connection: write_checkpoint(connection, checkpoint))
        self._stats["checkpoints"] += 1
        self._stats["checkpoint_bytes"] += checkpoint_bytes(checkpoint)

    async def truncate(self, partition: int, epoch: int, lsn: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            key = {"partition": partition, "epoch": epoch}
            if not connection.execute(SQL["head"], key).fetchall():
                raise EpochFenced(f"partition {partition}: epoch {epoch} is over")
            return connection.execute(
                SQL["truncate"], {"partition": partition, "lsn": lsn}
            ).rowcount

        return await self._write(work)

    async def head(self, partition: int, epoch: int) -> PartitionHead:
        rows = await self._fetch("head", partition=partition, epoch=epoch)
        if not rows:
            raise EpochFenced(f"partition {partition}: epoch {epoch} is over")
        return PartitionHead(*rows[0])

    # Instances

    async def load(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        rows = await self._fetch("load", keys=_json_text(keys))
        return [instance_of(row) for row in rows]

    async def load_whole(self, keys: Sequence[InstanceKey]) -> list[Whole]:
        def work(connection: sqlite3.Connection) -> list[Whole]:
            rows = connection.execute(SQL["load"], {"keys": _json_text(keys)}).fetchall()
            found = {row[0]: instance_of(row) for row in rows}
            wanted = [
                ExecutionKey(*key, found[key.instance_id].execution_id)
                for key in keys
                if key.instance_id in found and found[key.instance_id].may_run
            ]
            chunks: dict[str, list[HistoryChunk]] = {each: [] for each in found}
            for chunk in connection.execute(SQL["history"], {"keys": _json_text(wanted)}):
                chunks[chunk[0]].append(HistoryChunk(*chunk))
            return [Whole(row, chunks[instance_id]) for instance_id, row in found.items()]

        return await self._read(work)

    async def active(self, partition: int) -> AsyncIterator[InstanceRow]:
        size = PageSize()
        after = ""
        while rows := await self._fetch("active", partition=partition, after=after, rows=size.rows):
            for row in rows:
                yield instance_of(row)
            after = rows[-1][0]
            size.learn([len(row[-1]) for row in rows])

    async def due(self, partition: int) -> AsyncIterator[tuple[int, str]]:
        due, instance_id = START
        while rows := await self._fetch(
            "due", partition=partition, after_due=due, after_id=instance_id, rows=PAGE_ROWS_MAX
        ):
            for row in rows:
                yield row
            due, instance_id = rows[-1]

    async def history(self, keys: Sequence[ExecutionKey]) -> list[HistoryChunk]:
        rows = await self._fetch("history", keys=_json_text(keys))
        return [HistoryChunk(*row) for row in rows]

    async def query(self, where: Filter, *, limit: int, token: str | None = None) -> Page:
        check_limit(limit)
        after_created, after_id = decode_token(token)
        rows = await self._fetch(
            "query",
            after_created=after_created,
            after_id=after_id,
            rows=limit + 1,
            **_filter_params(where),
        )
        return page_of([instance_of(row) for row in rows], limit)

    async def count(self, where: Filter) -> dict[str, int]:
        return dict(await self._fetch("count", **_filter_params(where)))

    # Threads

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._stats["queries"] += 1
        return await self._writer.run(work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._stats["queries"] += 1
        return await self._reader.run(work)

    async def _fetch(self, name: str, /, **params: object) -> list[Any]:
        return await self._read(lambda connection: connection.execute(SQL[name], params).fetchall())


def _json_text(keys: Sequence[tuple[object, ...]]) -> str:
    return msgspec.json.encode(list(dict.fromkeys(keys))).decode()


def _filter_params(where: Filter) -> dict[str, object]:
    status = msgspec.json.encode(where.status).decode() if where.status else None
    return {**filter_params(where), "status": status}


def _view(connection: sqlite3.Connection, now: int) -> View:
    return View(
        now=now,
        hosts=tuple(
            Host(host_id, incarnation, address, shards, expires_at, bool(draining), version)
            for host_id, incarnation, address, shards, expires_at, draining, version in (
                connection.execute(SQL["hosts"])
            )
        ),
        partitions=tuple(Ownership(*row) for row in connection.execute(SQL["partitions"])),
    )


def parse_url(url: str) -> Path:
    """Return the file that a URL names, as an absolute path. Raises `ConfigInvalid`."""
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.query or parts.fragment or not name or name == ":memory:":
        raise ConfigInvalid(
            f"store.url: {url!r}: write sqlite:///relative.db or sqlite:////absolute.db, "
            "or memory:// for a store that is gone with the process"
        )
    return Path(os.path.abspath(name))
