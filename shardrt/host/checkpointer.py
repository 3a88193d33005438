"""Write-behind: what changed goes from memory to rows, now and then.

A checkpoint is captured at a seal, when the state is exactly that of one LSN, and written once
that LSN is durable. Instances that are in the store as they are in memory can then leave it:
ended ones at once, idle ones when memory is short. The journal is cut one checkpoint behind
the newest, so that there is always an older way to recover until the newer has proved itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from shardrt.core.codec import encode_entity, encode_head, encode_history, encode_instance
from shardrt.core.state import Head, Instance
from shardrt.errors import EpochFenced, ShardrtError
from shardrt.store.base import ENTITY, LIMIT, Checkpoint, Checkpoints, HistoryChunk, InstanceRow
from shardrt.store.paging import OutOfBounds
from shardrt.store.transactions import transactions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.entity import Entity
    from shardrt.core.partition import Partition
    from shardrt.core.state import Resident
    from shardrt.host.partition_host import PartitionHost
    from shardrt.store.transactions import OutcomeKey

logger = logging.getLogger(__name__)

BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 5.0
CUT_INTERVAL_S = 3.0
CUT_BYTES = 1 << 20
"""What a checkpoint covers of the journal is cut so often, or when it is so much: a little that
stays costs recovery nothing, and each cut is a commit."""
ROUND_MAX = 32
"""Checkpoints in an interval. Where more partitions than that have changed, each has its turn later
and holds more: one costs 0.8 ms of CPU beside what is in it."""
LOOK_S = 0.1
"""So often is it looked whether a checkpoint is urgent."""
PATIENCE_S = 5.0
"""So long does one checkpoint hold up those of other partitions."""
RESIDENT_BYTES = 3_500
"""What an idle instance takes beside its payloads: state, coroutine, event loop (measured)."""


class Captured(NamedTuple):
    """A checkpoint to be written, and how much of each tail it holds."""

    checkpoint: Checkpoint
    journal_bytes: int
    """Of the journal since the checkpoint before."""
    tails: dict[str, tuple[str, int]]
    """Instance → (execution, events of its tail)."""
    weights: dict[str, int]
    settled: list[OutcomeKey]
    """Outcomes of transactional activities that it holds."""


class Idle(NamedTuple):
    """A clean instance or entity in memory."""

    host: PartitionHost
    bytes: int


class Checkpointer:
    """Writes the checkpoints of all partitions of a shard, one after the other.

    One that the store refuses, or does not answer, is tried again beside the others.
    """

    def __init__(
        self,
        store: Checkpoints,
        *,
        interval_s: float,
        bytes_max: int,
        resident_bytes_max: int,
        drop: Callable[[str], None],
    ) -> None:
        self._transactions = transactions_of(store)
        self._store = store
        self._interval_s = interval_s
        self._bytes_max = bytes_max
        self.resident_bytes_max = resident_bytes_max
        """For idle instances; may be changed at any time."""
        self._drop = drop
        self._under_way: dict[PartitionHost, float] = {}
        """Since when, by loop time, those of the rounds so far that have not ended."""
        self._stretch = 1.0
        """In so many intervals each partition is written once."""
        self._look_s = 0.0
        """When to see again, in time of the loop, whether one is urgent."""
        self._stumbled = asyncio.Event()
        """Set when the store has refused a checkpoint."""
        self._idle: OrderedDict[str, Idle] = OrderedDict()
        """Clean instances, the one idle for longest first."""
        self.idle_bytes = 0
        self.evictions = 0
        self.lag_s = 0.0
        self.on_flushed: Callable[[float], None] = lambda _: None
        """Told how many seconds each checkpoint took to write."""

    @property
    def wait_s(self) -> float:
        """How long the oldest checkpoint that is under way has been, in seconds."""
        since_s = min(self._under_way.values(), default=None)
        return 0.0 if since_s is None else asyncio.get_running_loop().time() - since_s

    # -- the loop ------------------------------------------------------------------------------

    async def run(self, hosts: Callable[[], list[PartitionHost]]) -> None:
        """Checkpoint whatever is dirty, round after round, each spread over an interval or more."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                began = loop.time()
                partitions = hosts()
                self._stretch = max(1.0, sum(map(self.is_due, partitions)) / ROUND_MAX)
                interval_s = self._interval_s * self._stretch
                for number, host in enumerate(partitions):
                    await self._rest(began + interval_s * number / len(partitions), hosts)
                    if self.is_due(host) and host not in self._under_way:
                        await self._begin(host, tasks)
                self.lag_s = max(0.0, loop.time() - began - interval_s)
                await self._rest(began + interval_s, hosts)

    async def _begin(self, host: PartitionHost, tasks: asyncio.TaskGroup) -> None:
        """Checkpoint a partition; return when that is done, or may take long."""
        task = tasks.create_task(self.checkpoint(host))
        self._under_way[host] = asyncio.get_running_loop().time()
        task.add_done_callback(lambda _: self._under_way.pop(host))
        self._stumbled.clear()
        stumbled = tasks.create_task(self._stumbled.wait())
        await asyncio.wait(
            [task, stumbled], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        stumbled.cancel()

    async def _rest(self, until: float, hosts: Callable[[], list[PartitionHost]]) -> None:
        loop = asyncio.get_running_loop()
        while (rest_s := until - (now_s := loop.time())) > 0:
            # Not for each of many short rests: it looks at every partition.
            if now_s >= self._look_s:
                if any(self._is_urgent(host) for host in hosts()):
                    return
                self._look_s = now_s + LOOK_S
            await asyncio.sleep(min(LOOK_S, rest_s))

    @staticmethod
    def is_due(host: PartitionHost) -> bool:
        """Whether there is something that the store does not have as rows yet."""
        return not host.closed and (
            bool(host.core.dirty)
            or bool(host.core.deleted)
            or host.release.sealed > host.checkpoint_lsn
        )

    def _is_urgent(self, host: PartitionHost) -> bool:
        return host.journal_bytes > self._bytes_max and host not in self._under_way

    async def checkpoint(self, host: PartitionHost) -> None:
        """Bring one partition's rows up to date; return when they are, or it was discarded."""
        # The loop and a hand-over may both want one: what the second finds out about tails
        # would be wrong once the first has cut them.
        async with host.checkpointing:
            captured = await self._capture(host)
            if captured is None or not await self._write(host, captured.checkpoint):
                return
            previous, host.checkpoint_lsn = host.checkpoint_lsn, captured.checkpoint.lsn
            host.saved(captured.journal_bytes)
            self._settle(host, captured)
            await self._drop_outcomes(host, captured.settled)
            now_s = asyncio.get_running_loop().time()
            cut_interval_s = CUT_INTERVAL_S * self._stretch
            if captured.journal_bytes >= CUT_BYTES or now_s - host.cut_s >= cut_interval_s:
                host.cut_s = now_s
                await self._truncate(host, previous)

    async def _capture(self, host: PartitionHost) -> Captured | None:
        """Wait for a seal, capture there, and wait until that is durable."""
        loop = asyncio.get_running_loop()
        sealed: asyncio.Future[Captured] = loop.create_future()

        def capture(lsn: int) -> None:
            if not sealed.done():
                captured = capture_partition(host, lsn)
                for instance_id in captured.tails:
                    self._forget(instance_id)  # not to be evicted before this is in the store
                sealed.set_result(captured)

        host.on_seal = capture
        host.shard.wake(host, work=False)
        while True:
            done, _ = await asyncio.wait([sealed], timeout=0.5)
            if host.closed:
                return None
            if done:
                break
        captured = sealed.result()
        while host.release.durable < captured.checkpoint.lsn and not host.closed:
            await host.durable_soon()
        return None if host.closed else captured

    async def _write(self, host: PartitionHost, checkpoint: Checkpoint) -> bool:
        """Write it, however long that takes; return False if the partition was discarded."""
        backoff_s = BACKOFF_S_MIN
        while not host.closed:
            began_s = asyncio.get_running_loop().time()
            try:
                await self._store.checkpoint(checkpoint)
            except EpochFenced:
                host.discard()
            except OutOfBounds as error:
                # What it covers was durable, so the store has lost it, as in a fail-over.
                logger.warning("partition=%d is given up: %s", host.partition, error)
                host.discard()
            except ShardrtError as error:
                logger.warning(
                    "partition=%d checkpoint not written, trying again: %s", host.partition, error
                )
                self._stumbled.set()
                await asyncio.sleep(backoff_s)
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)
            except Exception as error:
                # What cannot be written stops this partition, and others go on.
                logger.exception("partition=%d stops", host.partition)
                host.discard(f"{type(error).__name__}: {error}")
            else:
                self.on_flushed(asyncio.get_running_loop().time() - began_s)
                return not host.closed
        return False

    async def _drop_outcomes(self, host: PartitionHost, settled: list[OutcomeKey]) -> None:
        if not settled or self._transactions is None:
            return
        try:
            await self._transactions.forget(settled)
        except ShardrtError as error:
            logger.warning("partition=%d outcomes not dropped yet: %s", host.partition, error)
            host.settled += settled

    async def _truncate(self, host: PartitionHost, lsn: int) -> None:
        try:
            await self._store.truncate(host.partition, host.epoch, lsn)
        except EpochFenced:
            host.discard()
        except ShardrtError as error:
            # Not tried again: the next checkpoint cuts this much and more.
            logger.warning("partition=%d journal not cut: %s", host.partition, error)

    # -- memory --------------------------------------------------------------------------------

    def _settle(self, host: PartitionHost, captured: Captured) -> None:
        """Let go of what the store has now."""
        core = host.core
        for chunk in captured.checkpoint.chunks:
            host.history.unpack(chunk)
        for instance_id in captured.checkpoint.deletes:
            if instance_id not in core.deleted:
                core.tombstones.pop(instance_id, None)
        for instance_id, (execution_id, length) in captured.tails.items():
            instance = core.instances.get(instance_id)
            if instance is None:
                if instance_id in core.entities and instance_id not in core.dirty:
                    self._note(host, instance_id, captured.weights[instance_id])
                continue
            if instance.execution_id == execution_id:
                del instance.tail[:length]
            if instance_id not in core.dirty:
                self._make_idle(host, instance, captured.weights[instance_id])
        self.evict()

    def _make_idle(self, host: PartitionHost, instance: Instance, weight: int) -> None:
        instance_id = instance.instance_id
        if instance.is_final and not host.loader.keeps(instance_id):
            host.core.evict(instance_id)
            self._forget(instance_id)
            return
        self._note(host, instance_id, weight)

    def admitted(self, host: PartitionHost, resident: Resident, state_bytes: int) -> None:
        """Note an instance or entity that was loaded from the store."""
        self._note(host, resident.instance_id, weight_of(state_bytes))

    def _note(self, host: PartitionHost, instance_id: str, weight: int) -> None:
        self._forget(instance_id)
        self.idle_bytes += weight
        self._idle[instance_id] = Idle(host, weight)

    def evict(self) -> None:
        """Drop the instances idle for longest while memory is over its bound."""
        for _ in range(len(self._idle)):
            if self.idle_bytes <= self.resident_bytes_max:
                return
            instance_id, resident = next(iter(self._idle.items()))
            if resident.host.loader.keeps(instance_id):
                self._idle.move_to_end(instance_id)
                continue
            self._forget(instance_id)
            if self._is_evictable(resident.host, instance_id):
                resident.host.core.evict(instance_id)
                self._drop(instance_id)
                self.evictions += 1

    def _forget(self, instance_id: str) -> None:
        resident = self._idle.pop(instance_id, None)
        if resident is not None:
            self.idle_bytes -= resident.bytes

    @staticmethod
    def _is_evictable(host: PartitionHost, instance_id: str) -> bool:
        core = host.core
        resident = core.instances.get(instance_id) or core.entities.get(instance_id)
        return (
            resident is not None
            and not host.closed
            and instance_id not in core.dirty
            and instance_id not in core.out
            and not resident.is_active
        )

    def discarded(self, host: PartitionHost) -> None:
        """Forget what belonged to a partition that is gone."""
        for instance_id in [i for i, each in self._idle.items() if each.host is host]:
            self._forget(instance_id)


def capture_partition(host: PartitionHost, lsn: int) -> Captured:
    """Encode everything that changed since the last capture, as of `lsn`.

    No await in here: the state must not move.
    """
    core = host.core
    dirty, core.dirty = core.dirty, {}
    deleted, core.deleted = core.deleted, {}
    journal_bytes, host.journal_bytes = host.journal_bytes, 0
    upserts: list[InstanceRow] = []
    chunks: list[HistoryChunk] = []
    resets: list[str] = []
    tails: dict[str, tuple[str, int]] = {}
    weights: dict[str, int] = {}
    for instance_id in dirty:
        instance = core.instances.get(instance_id)
        if instance is None:
            row = row_of_entity(core.entities[instance_id])
            upserts.append(row)
            tails[instance_id] = ("", 0)
            weights[instance_id] = weight_of(len(row.state))
            continue
        if instance.stale_history:
            resets.append(instance_id)
            instance.stale_history = False
        row = row_of(instance)
        upserts.append(row)
        tails[instance_id] = (instance.execution_id, len(instance.tail))
        weights[instance_id] = weight_of(len(row.state))
        packed = host.history.packed(instance)
        if packed is not None:
            chunks.append(packed)
        if instance.tail:
            seq = instance.history_length - len(instance.tail)
            events = encode_history(instance.tail)
            chunks.append(HistoryChunk(instance_id, instance.execution_id, seq, events))
    for instance_id in deleted:
        host.history.purged(instance_id)
    checkpoint = Checkpoint(
        partition=host.partition,
        epoch=host.epoch,
        lsn=lsn,
        state=encode_head(head_of(core)),
        upserts=upserts,
        chunks=chunks,
        resets=resets,
        deletes=list(deleted),
    )
    settled, host.settled = host.settled, []
    return Captured(checkpoint, journal_bytes, tails, weights, settled)


def weight_of(state_bytes: int) -> int:
    """Return about what an idle instance takes in memory."""
    return RESIDENT_BYTES + 2 * state_bytes


def head_of(core: Partition) -> Head:
    """Return the partition-wide state."""
    state = core.state
    return Head(
        state.partition,
        state.partitions,
        state.epoch,
        state.lanes,
        state.received,
        state.sessions,
        state.aside,
    )


def row_of_entity(entity: Entity) -> InstanceRow:
    """Return an entity, or a limiter, as the store keeps it."""
    return InstanceRow(
        entity.instance_id,
        "",
        entity.name,
        None,
        ENTITY if entity.limiter is None else LIMIT,
        entity.created_at,
        entity.updated_at,
        None,
        None,
        None,
        entity.next_due,
        entity.is_active,
        encode_entity(entity),
    )


def row_of(instance: Instance) -> InstanceRow:
    """Return an instance as the store keeps it."""
    parent = instance.parent
    return InstanceRow(
        instance.instance_id,
        instance.execution_id,
        instance.name,
        instance.version,
        instance.status,
        instance.created_at,
        instance.updated_at,
        instance.completed_at,
        parent.instance_id if parent is not None else None,
        instance.tags,
        instance.next_due,
        instance.is_active,
        encode_instance(instance),
    )
