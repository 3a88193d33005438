"""The PostgreSQL store.

Each operation is one statement of `queries.sql`, fenced by the epoch in that same statement.
Appends go over a connection of their own (`lane`), everything else through a small pool.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.errors import CommitUnknown, ConfigInvalid, EpochFenced, StoreUnavailable
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
    Page,
    PartitionHead,
    View,
    Whole,
)
from shardrt.store.columns import checkpoint_bytes, filter_params, instance_of
from shardrt.store.paging import (
    PAGE_ROWS_MAX,
    START,
    PageSize,
    check_bounds,
    check_limit,
    check_next,
    decode_token,
    page_of,
)
from shardrt.store.postgres.arrays import bytea_array, int4_array, int8_array, text_array
from shardrt.store.postgres.checkpoints import checkpoint_statement
from shardrt.store.postgres.database import Database
from shardrt.store.postgres.hub import check_safety, create_hub
from shardrt.store.postgres.transactions import PostgresTransactions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from psycopg.pq.abc import PGresult

_int4 = Struct("!i")
_int8 = Struct("!q")
_decode_view = msgspec.json.Decoder(View).decode


class PostgresStore:
    """A hub in a schema of a PostgreSQL database. Implements `Store`."""

    def __init__(self, url: str, *, connections: int = 2, unsafe: bool = False) -> None:
        self._database = Database(url, connections)
        self._unsafe = unsafe
        self.url_masked = self._database.url.masked
        self.transactions = PostgresTransactions(self._database)
        """For activities; see `store.transactions`."""
        # Epochs of appends whose connection broke: `position` must see to it that they
        # cannot take effect any more.
        self._in_doubt: dict[int, int] = {}
        self._cut: dict[int, tuple[int, int]] = {}
        """Partition → (epoch, LSN) up to which its journal was deleted under that epoch."""
        self._stats = dict.fromkeys(
            ("commits", "commit_bytes", "checkpoints", "checkpoint_bytes"), 0
        )

    async def open(self) -> None:
        settings = await self._database.probe()
        if not self._unsafe:
            check_safety(self.url_masked, settings)
        await self._database.start()

    async def close(self) -> None:
        await self.transactions.close()
        await self._database.close()

    def stats(self) -> dict[str, int]:
        return {**self._stats, "queries": self._database.queries_run}

    # Leases

    async def create(self, partitions: int) -> Hub:
        if partitions < 0:
            raise ConfigInvalid(f"partitions must be at least 1, not {partitions}")
        return await create_hub(self._database, partitions)

    async def schema(self) -> int:
        """Return the version of the schema."""
        ((version,),) = await self._database.fetch("migrations")
        return int(version)

    async def renew(self, host: Host, ttl: int) -> View:
        result = await self._repeatable(
            b"shardrt_renew",
            lambda: (
                host.host_id.encode(),
                host.incarnation.encode(),
                host.address.encode(),
                _int4.pack(host.shards),
                b"\1" if host.draining else b"\0",
                host.version.encode(),
                _int8.pack(ttl),
            ),
        )
        content = result.get_value(0, 0) if result.ntuples else None
        if content is None:
            raise EpochFenced(
                f"host {host.host_id}: another process holds this id and its lease is still good"
            )
        view = _decode_view(content)
        return msgspec.structs.replace(view, identity=self._database.identity)

    async def view(self) -> View:
        ((content,),) = await self._database.fetch("view")
        return _decode_view(content)

    async def claim(self, partition: int, seen_epoch: int, owner: str) -> int | None:
        rows = await self._database.write(
            "claim", partition=partition, seen_epoch=seen_epoch, owner=owner
        )
        return int(rows[0][0]) if rows else None

    async def release(self, partition: int, epoch: int) -> bool:
        rows = await self._database.write("release", partition=partition, epoch=epoch)
        return bool(rows)

    async def leave(self, host: Host) -> None:
        owner = f"{host.host_id}/{host.incarnation}"
        try:
            # One by one: no transaction of ours ever spans two partitions.
            for partition, epoch in await self._database.fetch("owned", owner=owner):
                await self.release(partition, epoch)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from None
        await self._database.fetch("leave", host_id=host.host_id, incarnation=host.incarnation)

    async def _repeatable(
        self, statement: bytes, arguments: Callable[[], Sequence[bytes | None]]
    ) -> PGresult:
        """Run a statement on the commit connection that does no harm if it is repeated."""
        self._database.queries_run += 1
        try:
            return await self._database.lane.run(statement, arguments)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from None

    # Journal

    async def append(self, batch: Sequence[Append]) -> set[int]:
        if not batch:
            return set()
        partitions = [a.partition for a in batch]
        assert len(set(partitions)) == len(batch), "one record per partition and batch"
        records = bytea_array([a.record for a in batch])
        lane = self._database.lane
        try:
            result = await lane.run(
                b"shardrt_append",
                lambda: (
                    int4_array(partitions),
                    int8_array([a.epoch for a in batch]),
                    int8_array([a.lsn for a in batch]),
                    records,
                    _int8.pack(lane.birth),
                ),
            )
        except CommitUnknown:
            self._in_doubt.update((a.partition, a.epoch) for a in batch)
            raise
        self._stats["commits"] += 1
        self._stats["commit_bytes"] += len(records)
        if result.ntuples == len(batch):
            return set(partitions)
        get, unpack = result.get_value, _int4.unpack
        return {unpack(get(i, 0))[0] for i in range(result.ntuples)}  # type: ignore[arg-type]

    async def position(self, partition: int) -> tuple[int, int]:
        doubt = self._in_doubt.get(partition, 0)
        lane = self._database.lane
        result = await self._repeatable(
            b"shardrt_position",
            lambda: (
                _int4.pack(partition),
                _int8.pack(doubt),
                _int8.pack(lane.birth if doubt else 0),
            ),
        )
        if not result.ntuples:
            raise StoreUnavailable(f"{self.url_masked}: there is no partition {partition}")
        self._in_doubt.pop(partition, None)
        epoch, lsn = result.get_value(0, 0), result.get_value(0, 1)
        assert epoch is not None
        assert lsn is not None
        return _int8.unpack(epoch)[0], _int8.unpack(lsn)[0]

    async def read(self, partition: int, after: int) -> AsyncIterator[tuple[int, bytes]]:
        size = PageSize()
        while rows := await self._database.fetch(
            "read", partition=partition, after=after, rows=size.rows
        ):
            for lsn, record in rows:
                check_next(partition, after + 1, lsn)
                after = lsn
                yield lsn, record
            size.learn([len(record) for _, record in rows])

    # Checkpoints

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        statement, params = checkpoint_statement(checkpoint)
        try:
            await self._database.write(statement, **params)
        except EpochFenced:
            await self._check_bounds(checkpoint)
            raise EpochFenced(
                f"partition {checkpoint.partition}: epoch {checkpoint.epoch} is over"
            ) from None
        self._stats["checkpoints"] += 1
        self._stats["checkpoint_bytes"] += checkpoint_bytes(checkpoint)

    async def _check_bounds(self, refused: Checkpoint) -> None:
        rows = await self._database.fetch("bounds", partition=refused.partition)
        for epoch, commit_lsn, checkpoint_lsn in rows:
            if epoch == refused.epoch:
                check_bounds(refused, checkpoint_lsn, commit_lsn)

    async def truncate(self, partition: int, epoch: int, lsn: int) -> int:
        of_epoch, after = self._cut.get(partition, (epoch, 0))
        ((cut, deleted),) = await self._database.write(
            "truncate",
            partition=partition,
            epoch=epoch,
            after=after if of_epoch == epoch else 0,
            lsn=lsn,
        )
        if cut is None:
            raise EpochFenced(f"partition {partition}: epoch {epoch} is over")
        self._cut[partition] = (epoch, int(cut))
        return int(deleted)

    async def head(self, partition: int, epoch: int) -> PartitionHead:
        rows = await self._database.fetch("head", partition=partition, epoch=epoch)
        if not rows:
            raise EpochFenced(f"partition {partition}: epoch {epoch} is over")
        return PartitionHead(*rows[0])

    # Instances

    async def load(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        rows = await self._database.fetch("load", **_by_key(keys))
        return [instance_of(row) for row in rows]

    async def load_whole(self, keys: Sequence[InstanceKey]) -> list[Whole]:
        rows = await self._database.fetch("load_whole", **_by_key(keys))
        # In whatever order the server has joined them.
        chunks: dict[str, list[HistoryChunk]] = {row[0]: [] for row in rows}
        for instance_id, execution_id, *_, seq, events in sorted(rows, key=_seq_of):
            if seq is not None:
                chunks[instance_id].append(HistoryChunk(instance_id, execution_id, seq, events))
        return [
            Whole(instance_of(columns), chunks[columns[0]])
            for *columns, _, _ in rows
            if columns[-1] is not None
        ]

    async def active(self, partition: int) -> AsyncIterator[InstanceRow]:
        size = PageSize()
        after = ""
        while rows := await self._database.fetch(
            "active", partition=partition, after=after, rows=size.rows
        ):
            for row in rows:
                yield instance_of(row)
            after = rows[-1][0]
            size.learn([len(row[-1]) for row in rows])

    async def due(self, partition: int) -> AsyncIterator[tuple[int, str]]:
        due, instance_id = START
        while rows := await self._database.fetch(
            "due", partition=partition, after_due=due, after_id=instance_id, rows=PAGE_ROWS_MAX
        ):
            for row in rows:
                yield row
            due, instance_id = rows[-1]

    async def history(self, keys: Sequence[ExecutionKey]) -> list[HistoryChunk]:
        wanted = list(dict.fromkeys(keys))
        executions = text_array([key.execution_id for key in wanted])
        rows = await self._database.fetch("history", **_by_key(wanted), execution_ids=executions)
        return [HistoryChunk(*row) for row in rows]

    async def query(self, where: Filter, *, limit: int, token: str | None = None) -> Page:
        check_limit(limit)
        after_created, after_id = decode_token(token)
        rows = await self._database.fetch_unprepared(
            "query",
            after_created=after_created,
            after_id=after_id,
            rows=limit + 1,
            **_filter_params(where),
        )
        return page_of([instance_of(row) for row in rows], limit)

    async def count(self, where: Filter) -> dict[str, int]:
        return dict(await self._database.fetch_unprepared("count", **_filter_params(where)))


def _by_key(keys: Sequence[InstanceKey | ExecutionKey]) -> dict[str, object]:
    wanted = list(dict.fromkeys(keys))
    return {
        "partitions": int4_array([key.partition for key in wanted]),
        "instance_ids": text_array([key.instance_id for key in wanted]),
    }


def _filter_params(where: Filter) -> dict[str, object]:
    return {**filter_params(where), "status": text_array(where.status) if where.status else None}


def _seq_of(row: tuple[Any, ...]) -> int:
    """Return where a chunk of history begins; 0 if there is none."""
    return row[-2] or 0
