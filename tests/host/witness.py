"""What must be so in any hub, whatever went wrong: the twin of each partition, and its history."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from shardrt.core import history as h
from shardrt.core.codec import (
    decode_entity,
    decode_instance,
    decode_record,
    decode_resident,
    encode_entity,
    encode_instance,
    encode_record,
)
from shardrt.core.entity import Entity, is_entity_id
from shardrt.core.entries import instance_of
from shardrt.core.limiter import is_limiter_id
from shardrt.core.partition import Partition
from shardrt.core.state import PartitionState, Resident
from shardrt.host.recovery import recover
from tests.store.hubs import keys

if TYPE_CHECKING:
    from shardrt.core.entries import Entry
    from shardrt.core.history import HistoryEvent
    from shardrt.core.limiter import Limiter
    from shardrt.host.partition_host import PartitionHost
    from shardrt.testing.client import HubClient
    from shardrt.testing.hub import Hub


def assert_same(live: PartitionState, other: PartitionState) -> None:
    """Compare everything but the history that a checkpoint has taken out of memory."""
    for name in ("partition", "partitions", "epoch", "lanes", "received", "sessions"):
        assert getattr(live, name) == getattr(other, name), name
    assert live.entities == other.entities
    assert live.instances.keys() == other.instances.keys()
    for instance_id, instance in live.instances.items():
        copy = other.instances[instance_id]
        for field in instance.__struct_fields__:
            if field not in {"tail", "stale_history"}:  # checkpoints change these
                left, right = getattr(instance, field), getattr(copy, field)
                assert left == right, f"{field} of {instance_id}: {left} != {right}"
        shared = min(len(instance.tail), len(copy.tail))
        assert (
            instance.tail[-shared or len(instance.tail) :] == copy.tail[-shared or len(copy.tail) :]
        )


class Twin:
    """A second state that sees only encoded entries, and is compared after each (I3)."""

    def __init__(self, host: PartitionHost) -> None:
        self.live = host.core
        self.compared = 0
        encoded = msgspec.json.encode(host.core.state)
        self.copy = Partition(msgspec.json.decode(encoded, type=PartitionState))
        WATCHED[id(self.live)] = self
        self.live.__class__ = Watched

    def write(self, entry: Entry) -> None:
        before = limiter_of(self.live, entry)
        Partition._write(self.live, entry)
        assert_within_limit(before, limiter_of(self.live, entry))
        self.copy.replay(decode_record(encode_record([entry])))
        assert_same(self.live.state, self.copy.state)
        self.compared += 1

    def admit(self, resident: Resident) -> None:
        Partition.admit(self.live, resident)
        instance_id = resident.instance_id
        if isinstance(resident, Entity):
            self.copy.entities[instance_id] = decode_entity(encode_entity(resident))
        else:
            self.copy.instances[instance_id] = decode_instance(encode_instance(resident))

    def evict(self, instance_id: str) -> None:
        Partition.evict(self.live, instance_id)
        if self.copy.instances.pop(instance_id, None) is None:
            del self.copy.entities[instance_id]


class Watched(Partition):
    """A partition that has a twin."""

    __slots__ = ()

    def _write(self, entry: Entry) -> None:
        WATCHED[id(self)].write(entry)

    def admit(self, resident: Resident) -> None:
        WATCHED[id(self)].admit(resident)

    def evict(self, instance_id: str) -> None:
        WATCHED[id(self)].evict(instance_id)


WATCHED: WeakValueDictionary[int, Twin] = WeakValueDictionary()
"""By identity, for a partition has no room for anything else."""


class Twins:
    """A twin for every partition of a hub, from the moment it serves."""

    def __init__(self, hub: Hub) -> None:
        self.all: list[Twin] = []
        hub.on_opened = lambda host: self.all.append(Twin(host))

    @property
    def compared(self) -> int:
        return sum(twin.compared for twin in self.all)


def limiter_of(core: Partition, entry: Entry) -> Limiter | None:
    """Return the limiter that an entry concerns, as it is now."""
    entity = core.entities.get(instance_of(entry) or "")
    return None if entity is None else deepcopy(entity.limiter)


def assert_within_limit(before: Limiter | None, after: Limiter | None) -> None:
    """Check, if slots were granted, that so many were allowed."""
    if after is None or (before is not None and not after.holders.keys() - before.holders.keys()):
        return
    allowed = after.numbers.concurrency
    assert allowed is None or len(after.holders) <= allowed
    rate, latest = after.numbers.rate, max(after.holders.values(), default=0)
    recent = [at for at in after.holders.values() if at > latest - after.numbers.per]
    assert rate is None or len(recent) <= rate


async def assert_no_slots(hub: Hub) -> None:
    """Check, in a hub that is quiet and has ended everything, that no slot is held or wanted."""
    for partition in range(hub.partitions):
        host = hub.host_of(partition)
        assert host is not None
        stored = [
            decode_entity(row.state)
            for row in hub.store._hub.partitions[partition].instances.values()
            if is_limiter_id(row.instance_id) and row.instance_id not in host.core.entities
        ]
        for entity in [*host.core.entities.values(), *stored]:
            assert entity.limiter is None or entity.limiter.is_unused, entity


async def assert_recoverable(hub: Hub) -> None:
    """Compare what the store alone gives with what is live, in a hub that is quiet."""
    for partition in range(hub.partitions):
        host = hub.host_of(partition)
        assert host is not None
        store = hub.store.sibling()
        await store.open()
        core, _ = await recover(store, partition, hub.partitions, host.epoch)
        missing = sorted(residents(host.core) - residents(core))
        for row in await store.load(keys(partition, missing)):
            core.admit(decode_resident(row.instance_id, row.state))
        for evicted in residents(core) - residents(host.core):
            (row,) = await store.load(keys(partition, [evicted]))
            host.core.admit(decode_resident(row.instance_id, row.state))
        assert_same(host.core.state, core.state)
        assert_full_replay(hub, host, core)


def residents(core: Partition) -> set[str]:
    """Return the ids of all instances and entities in memory."""
    return {*core.instances, *core.entities}


def assert_full_replay(hub: Hub, host: PartitionHost, recovered: Partition) -> None:
    """Checkpoint and tail of the journal are the same as the whole journal."""
    core = Partition(PartitionState(partition=host.partition, partitions=hub.partitions))
    records = hub.calls.records[host.partition]
    assert sorted(records) == list(range(1, host.release.durable + 1))
    for lsn in sorted(records):
        core.replay(decode_record(records[lsn]))
    for instance_id in core.instances.keys() - recovered.instances.keys():
        assert core.instances[instance_id].is_final or not core.instances[instance_id].is_active
        del core.instances[instance_id]
    for instance_id in core.entities.keys() - recovered.entities.keys():
        assert not core.entities[instance_id].is_active
        del core.entities[instance_id]
    assert_same(recovered.state, core.state)


async def assert_history(client: HubClient, instance_id: str) -> list[HistoryEvent]:
    """Check that the history of an instance that has ended can be one."""
    events = await client.history(instance_id)
    assert events is not None, instance_id
    assert isinstance(events[0], h.ExecutionStarted)
    ends = [e for e in events if isinstance(e, (h.ExecutionCompleted, h.ExecutionTerminated))]
    assert ends == events[-1:], f"{instance_id} does not end with its end: {events}"
    asked = {e.task_id for e in events if isinstance(e, (h.TaskScheduled, h.TimerCreated))}
    outcomes = Counter(
        e.task_id for e in events if isinstance(e, (h.TaskCompleted, h.TaskFailed, h.TimerFired))
    )
    assert not outcomes or max(outcomes.values()) == 1, f"two outcomes in {instance_id}: {events}"
    assert outcomes.keys() <= asked
    times = [e.at for e in events if isinstance(e, h.OrchestratorStarted)]
    assert times == sorted(times)
    return events


def instances_of(hub: Hub) -> list[str]:
    """Return the ids of all instances, in memory or not."""
    found: set[str] = set()
    for partition in hub.store._hub.partitions:
        found |= partition.instances.keys()
    for member in hub.members:
        for host in member.shard.hosts.values():
            found |= host.core.instances.keys()
    return sorted(each for each in found if not is_entity_id(each))
