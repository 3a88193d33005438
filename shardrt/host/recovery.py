"""Taking a partition over: checkpoint, then the journal after it, then on with the work.

The claim comes first, so nothing can be appended behind the back of what is read here. Only
instances that need attention are loaded, and those that the journal's tail speaks of; all
others come when something concerns them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shardrt.core.codec import decode_head, decode_record
from shardrt.core.entries import Entry, instance_of
from shardrt.core.partition import Partition
from shardrt.core.state import PartitionState
from shardrt.core.timers import WHOLE
from shardrt.errors import RecordCorrupt
from shardrt.host.quarantine import admit_row, check_replayable
from shardrt.store.base import InstanceKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shardrt.store.base import PartitionHead, Store

logger = logging.getLogger(__name__)

BATCH_ENTRIES = 5_000
"""Entries applied at a time: bounds memory, and saves look-ups."""


async def recover(
    store: Store,
    partition: int,
    partitions: int,
    epoch: int,
    also: Iterable[str] = (),
    make: Callable[[PartitionState], Partition] = Partition,
) -> tuple[Partition, PartitionHead]:
    """Rebuild a partition that was claimed under `epoch`; have `also` these in memory.

    Raises:
        EpochFenced: it has been claimed by somebody else since.
        RecordCorrupt: what is stored cannot be understood, or has a gap.
        StoreUnavailable: try again.
    """
    head = await store.head(partition, epoch)
    core = make(_state(head, partition, partitions))
    async for row in store.active(partition):
        admit_row(core, row)
    async for due, instance_id in store.due(partition):
        if not core.holds(instance_id) and instance_id not in core.quarantined:
            core.timers.add(due, instance_id, WHOLE)
    count = await _replay_journal(store, core, head)
    await _load(store, core, [*core.state.aside, *also])
    core.state.epoch = epoch
    logger.log(
        # The start of a host that has nothing to do is not worth a line for each partition.
        logging.INFO if core.instances else logging.DEBUG,
        "partition=%d epoch=%d recovered: checkpoint %d, %d records after it, %d instances",
        partition,
        epoch,
        head.checkpoint_lsn,
        count,
        len(core.instances),
    )
    return core, head


def _state(head: PartitionHead, partition: int, partitions: int) -> PartitionState:
    if not head.state:
        return PartitionState(partition=partition, partitions=partitions)
    stored = decode_head(head.state)
    if (stored.partition, stored.partitions) != (partition, partitions):
        raise RecordCorrupt(
            f"checkpoint is of partition {stored.partition} of {stored.partitions}, "
            f"not of {partition} of {partitions}"
        )
    return PartitionState(
        partition=partition,
        partitions=partitions,
        epoch=stored.epoch,
        lanes=stored.lanes,
        received=stored.received,
        sessions=stored.sessions,
        aside=stored.aside,
    )


async def _replay_journal(store: Store, core: Partition, head: PartitionHead) -> int:
    partition = core.state.partition
    expected = head.checkpoint_lsn
    batch: list[Entry] = []
    async for lsn, record in store.read(partition, head.checkpoint_lsn):
        expected += 1
        if lsn != expected:
            raise RecordCorrupt(
                f"partition {partition}: journal jumps from {expected - 1} to {lsn}"
            )
        try:
            batch += decode_record(record)
        except RecordCorrupt as error:
            raise RecordCorrupt(f"partition {partition}, record {lsn}: {error}") from None
        if len(batch) >= BATCH_ENTRIES:
            await _apply(store, core, batch)
            batch = []
    await _apply(store, core, batch)
    if expected != head.commit_lsn:
        raise RecordCorrupt(
            f"partition {partition}: journal ends at {expected}, {head.commit_lsn} was committed"
        )
    return expected - head.checkpoint_lsn


async def _apply(store: Store, core: Partition, entries: Sequence[Entry]) -> None:
    wanted = [instance_of(entry) for entry in entries]
    await _load(store, core, [each for each in wanted if each is not None])
    check_replayable(core, entries)
    core.replay(entries)


async def _load(store: Store, core: Partition, instance_ids: Iterable[str]) -> None:
    known = (core.instances, core.entities, core.tombstones, core.quarantined)
    partition = core.state.partition
    missing = sorted(
        InstanceKey(partition, each)
        for each in set(instance_ids)
        if not any(each in some for some in known)
    )
    for start in range(0, len(missing), 1000):
        for row in await store.load(missing[start : start + 1000]):
            admit_row(core, row)
