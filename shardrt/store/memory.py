"""The store in this process's memory: for tests, samples and simulation.

It has the same semantics as the others, fencing included, and is the model that they are
compared with. No method awaits anything, so each is atomic. Time comes from outside.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from shardrt.errors import ConfigInvalid, EpochFenced, HubMismatch, StoreUnavailable
from shardrt.store.base import (
    ENTITY,
    FORMAT,
    LIMIT,
    PARTITIONS_DEFAULT,
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
from shardrt.store.columns import checkpoint_bytes
from shardrt.store.paging import check_bounds, check_limit, check_next, decode_token, page_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

FORGET_HOST_US = 3600 * 1_000_000


@dataclass(slots=True)
class _Partition:
    owner: str | None = None
    epoch: int = 0
    commit_lsn: int = 0
    checkpoint_lsn: int = 0
    state: bytes = b""
    journal: dict[int, bytes] = field(default_factory=dict)
    instances: dict[str, InstanceRow] = field(default_factory=dict)
    # By instance, then (execution, seq).
    history: dict[str, dict[tuple[str, int], bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Hub:
    """What the stores of one name share."""

    partitions: list[_Partition] = field(default_factory=list)
    hosts: dict[str, Host] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


_hubs: dict[str, _Hub] = {}


class MemoryStore:
    """A hub in memory. Implements `Store`."""

    def __init__(
        self,
        now: Callable[[], int] = wall_clock_us,
        *,
        hub: _Hub | None = None,
        url: str = "memory://",
    ) -> None:
        self._now = now
        self._hub = hub or _Hub()
        self._open = False
        self._stats = dict.fromkeys(
            ("commits", "commit_bytes", "checkpoints", "checkpoint_bytes", "queries"), 0
        )
        self.url_masked = url

    @classmethod
    def named(cls, url: str, now: Callable[[], int] = wall_clock_us) -> MemoryStore:
        """Return a store on the hub that all stores of this URL share; no name: its own."""
        name = urlsplit(url).netloc
        return cls(now, hub=_hubs.setdefault(name, _Hub()) if name else None, url=url)

    def sibling(self) -> MemoryStore:
        """Return another unopened store on the same hub, as another process would have."""
        return MemoryStore(self._now, hub=self._hub, url=self.url_masked)

    async def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False

    def stats(self) -> dict[str, int]:
        return dict(self._stats)

    # Leases

    async def create(self, partitions: int) -> Hub:
        self._check_open()
        if partitions < 0:
            raise ConfigInvalid(f"partitions must be at least 1, not {partitions}")
        if not self._hub.partitions:
            count = partitions or PARTITIONS_DEFAULT
            self._hub.partitions = [_Partition() for _ in range(count)]
        found = len(self._hub.partitions)
        if partitions not in {0, found}:
            raise HubMismatch(
                f"{self.url_masked}: the hub has {found} partitions, not {partitions}; the number "
                "is fixed when a hub is created"
            )
        return Hub(partitions=found, format=FORMAT, identity="", id=self._hub.id)

    async def renew(self, host: Host, ttl: int) -> View:
        self._count_query()
        now = self._now()
        hosts = self._hub.hosts
        present = hosts.get(host.host_id)
        if present and present.incarnation != host.incarnation and present.expires_at > now:
            raise EpochFenced(
                f"host {host.host_id}: another process holds this id and its lease is still good"
            )
        for other in list(hosts.values()):
            if other.expires_at < now - FORGET_HOST_US:
                del hosts[other.host_id]
        hosts[host.host_id] = msgspec.structs.replace(host, expires_at=now + ttl)
        return self._view(now)

    async def view(self) -> View:
        self._count_query()
        return self._view(self._now())

    def _view(self, now: int) -> View:
        return View(
            now=now,
            hosts=tuple(host for _, host in sorted(self._hub.hosts.items())),
            partitions=tuple(
                Ownership(number, p.owner, p.epoch, p.commit_lsn, p.checkpoint_lsn)
                for number, p in enumerate(self._hub.partitions)
            ),
        )

    async def claim(self, partition: int, seen_epoch: int, owner: str) -> int | None:
        self._count_query()
        row = self._partition(partition)
        if row.epoch != seen_epoch or not (row.owner in {None, owner} or self._is_dead(row.owner)):
            return None
        row.owner = owner
        row.epoch += 1
        return row.epoch

    def _is_dead(self, owner: str | None) -> bool:
        now = self._now()
        return not any(
            f"{host.host_id}/{host.incarnation}" == owner and host.expires_at > now
            for host in self._hub.hosts.values()
        )

    async def release(self, partition: int, epoch: int) -> bool:
        self._count_query()
        row = self._partition(partition)
        if row.epoch != epoch:
            return False
        row.owner = None
        return True

    async def leave(self, host: Host) -> None:
        self._count_query()
        owner = f"{host.host_id}/{host.incarnation}"
        for row in self._hub.partitions:
            if row.owner == owner:
                row.owner = None
        present = self._hub.hosts.get(host.host_id)
        if present and present.incarnation == host.incarnation:
            del self._hub.hosts[host.host_id]

    # Journal

    async def append(self, batch: Sequence[Append]) -> set[int]:
        self._check_open()
        if not batch:
            return set()
        assert len({a.partition for a in batch}) == len(batch), "one record per partition and batch"
        done = set()
        for item in batch:
            row = self._find(item.partition)
            if row and (row.epoch, row.commit_lsn + 1) == (item.epoch, item.lsn):
                row.commit_lsn = item.lsn
                row.journal[item.lsn] = item.record
                done.add(item.partition)
        self._stats["commits"] += 1
        self._stats["commit_bytes"] += sum(len(item.record) for item in batch)
        return done

    async def position(self, partition: int) -> tuple[int, int]:
        self._count_query()
        row = self._partition(partition)
        return row.epoch, row.commit_lsn

    async def read(self, partition: int, after: int) -> AsyncIterator[tuple[int, bytes]]:
        self._count_query()
        journal = self._partition(partition).journal
        # One lookup at a time: others may append or truncate between two records.
        while (record := journal.get(after + 1)) is not None:
            after += 1
            yield after, record
        later = [lsn for lsn in journal if lsn > after]
        if later:
            check_next(partition, after + 1, min(later))

    # Checkpoints

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        self._check_open()
        row = self._owned(checkpoint.partition, checkpoint.epoch)
        check_bounds(checkpoint, row.checkpoint_lsn, row.commit_lsn)
        for instance_id in checkpoint.deletes:
            row.instances.pop(instance_id, None)
            row.history.pop(instance_id, None)
        row.instances.update({each.instance_id: each for each in checkpoint.upserts})
        for instance_id in checkpoint.resets:
            _forget_others(row, instance_id)
        for chunk in checkpoint.chunks:
            chunks = row.history.setdefault(chunk.instance_id, {})
            chunks[chunk.execution_id, chunk.seq] = chunk.events
        row.state = checkpoint.state
        row.checkpoint_lsn = checkpoint.lsn
        self._stats["checkpoints"] += 1
        self._stats["checkpoint_bytes"] += checkpoint_bytes(checkpoint)

    async def truncate(self, partition: int, epoch: int, lsn: int) -> int:
        self._count_query()
        row = self._owned(partition, epoch)
        covered = [each for each in row.journal if each <= min(lsn, row.checkpoint_lsn)]
        for each in covered:
            del row.journal[each]
        return len(covered)

    async def head(self, partition: int, epoch: int) -> PartitionHead:
        self._count_query()
        row = self._owned(partition, epoch)
        return PartitionHead(row.epoch, row.commit_lsn, row.checkpoint_lsn, row.state)

    # Instances

    async def load(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        self._count_query()
        found = (
            self._partition(partition).instances.get(instance_id)
            for partition, instance_id in dict.fromkeys(keys)
        )
        return [row for row in found if row is not None]

    async def load_whole(self, keys: Sequence[InstanceKey]) -> list[Whole]:
        self._count_query()
        return [
            Whole(row, self._chunks(partition, instance_id, row.execution_id))
            if row.may_run
            else Whole(row, [])
            for partition, instance_id in dict.fromkeys(keys)
            if (row := self._partition(partition).instances.get(instance_id)) is not None
        ]

    async def active(self, partition: int) -> AsyncIterator[InstanceRow]:
        self._count_query()
        for _, row in sorted(self._partition(partition).instances.items()):
            if row.active:
                yield row

    async def due(self, partition: int) -> AsyncIterator[tuple[int, str]]:
        self._count_query()
        rows = self._partition(partition).instances.values()
        for due in sorted((r.next_due, r.instance_id) for r in rows if r.next_due is not None):
            yield due

    async def history(self, keys: Sequence[ExecutionKey]) -> list[HistoryChunk]:
        self._count_query()
        return [chunk for key in dict.fromkeys(keys) for chunk in self._chunks(*key)]

    def _chunks(self, partition: int, instance_id: str, execution_id: str) -> list[HistoryChunk]:
        chunks = self._partition(partition).history.get(instance_id, {})
        return [
            HistoryChunk(instance_id, execution, seq, events)
            for (execution, seq), events in sorted(chunks.items())
            if execution == execution_id
        ]

    async def query(self, where: Filter, *, limit: int, token: str | None = None) -> Page:
        self._count_query()
        check_limit(limit)
        after = decode_token(token)
        found = [row for row in self._matching(where) if (row.created_at, row.instance_id) > after]
        found.sort(key=lambda row: (row.created_at, row.instance_id))
        return page_of(found[: limit + 1], limit)

    async def count(self, where: Filter) -> dict[str, int]:
        self._count_query()
        return dict(Counter(row.status for row in self._matching(where)))

    def _matching(self, where: Filter) -> Iterator[InstanceRow]:
        for partition in self._hub.partitions:
            for row in partition.instances.values():
                if matches(where, row):
                    yield row

    # Rows

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable(f"{self.url_masked}: the store is not open")

    def _count_query(self) -> None:
        self._check_open()
        self._stats["queries"] += 1

    def _find(self, partition: int) -> _Partition | None:
        rows = self._hub.partitions
        return rows[partition] if 0 <= partition < len(rows) else None

    def _partition(self, partition: int) -> _Partition:
        row = self._find(partition)
        if row is None:
            raise StoreUnavailable(f"{self.url_masked}: there is no partition {partition}")
        return row

    def _owned(self, partition: int, epoch: int) -> _Partition:
        row = self._partition(partition)
        if row.epoch != epoch:
            raise EpochFenced(f"partition {partition}: epoch {epoch} is over")
        return row


def matches(where: Filter, row: InstanceRow) -> bool:
    """Tell whether a row fulfils all conditions of a filter."""
    return (
        (row.status == ENTITY) == where.entities
        and (row.status == LIMIT) == where.limits
        and (not where.status or row.status in where.status)
        and (where.name is None or row.name == where.name)
        and (where.id_prefix is None or row.instance_id.startswith(where.id_prefix))
        and _within(row.created_at, where.created_from, where.created_to)
        and _within(row.completed_at, where.completed_from, where.completed_to)
        and (where.tags or {}).items() <= (row.tags or {}).items()
    )


def _within(value: int | None, start: int | None, stop: int | None) -> bool:
    if value is None:
        return start is None and stop is None
    return (start is None or value >= start) and (stop is None or value < stop)


def _forget_others(row: _Partition, instance_id: str) -> None:
    kept = row.instances.get(instance_id)
    chunks = row.history.get(instance_id)
    if kept is None or chunks is None:
        return
    for execution, seq in list(chunks):
        if execution != kept.execution_id:
            del chunks[execution, seq]
