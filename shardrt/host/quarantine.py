"""Reading rows of instances, also those that are damaged: these are quarantined, others go on.

A row is whole or it is not: no part of a state that cannot be decoded is believed, but its
columns are, as far as they make sense, to tell people what it is.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shardrt.core.answering import quarantined_entity
from shardrt.core.codec import decode_entity, decode_instance, decode_resident
from shardrt.core.entity_answering import entity_snapshot
from shardrt.core.entries import Removed, instance_of
from shardrt.core.ground import snapshot_of
from shardrt.core.history import Status
from shardrt.core.limiter import Limiter
from shardrt.core.requests import Snapshot
from shardrt.errors import RecordCorrupt
from shardrt.links.admin import LimitSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shardrt.core.entries import Entry
    from shardrt.core.partition import Partition
    from shardrt.core.requests import EntitySnapshot
    from shardrt.core.state import Resident
    from shardrt.store.base import InstanceRow

logger = logging.getLogger(__name__)

NAMED_MAX = 20
"""So many instances of a partition are named in views of the cluster."""


def some_of(cores: Mapping[int, Partition]) -> dict[int, list[str]]:
    """Return the instances of each partition that cannot be read, or the first of them."""
    return {
        partition: list(core.quarantined)[:NAMED_MAX]
        for partition, core in cores.items()
        if core.quarantined
    }


def decode_row(row: InstanceRow) -> Resident:
    """Return what a row holds. Raises `RecordCorrupt`."""
    resident = decode_resident(row.instance_id, row.state)
    _check_id(row, resident.instance_id)
    return resident


def _check_id(row: InstanceRow, found: str) -> None:
    if found != row.instance_id:
        raise RecordCorrupt(f"is the state of {found!r}")


def admit_row(core: Partition, row: InstanceRow) -> Resident | None:
    """Bring an instance into memory, or quarantine it; return it if it can be read."""
    try:
        resident = decode_row(row)
    except RecordCorrupt as error:
        partition = core.state.partition
        logger.error(  # noqa: TRY400 - where it happened says nothing
            "partition=%d instance=%s is quarantined, its stored state %s",
            partition,
            row.instance_id,
            error,
        )
        core.quarantined[row.instance_id] = quarantined_snapshot(row, partition, error)
        return None
    core.admit(resident)
    return resident


def quarantined_snapshot(row: InstanceRow, partition: int, error: RecordCorrupt) -> Snapshot:
    """Return what the columns of a row tell of an instance whose state is damaged."""
    try:
        status = Status(row.status)
    except ValueError:  # of an entity, or damaged too
        status = Status.RUNNING
    return Snapshot(
        instance_id=row.instance_id,
        execution_id=row.execution_id,
        name=row.name,
        status=status,
        created_at=row.created_at,
        updated_at=row.updated_at,
        partition=partition,
        version=row.version,
        completed_at=row.completed_at,
        reason=f"quarantined: its stored state {error}",
        parent_instance_id=row.parent_id,
        tags=row.tags,
    )


def snapshot_of_row(row: InstanceRow, partition: int) -> Snapshot:
    """Return an instance as users see it, damaged or not."""
    try:
        instance = decode_instance(row.state)
        _check_id(row, instance.instance_id)
    except RecordCorrupt as error:
        return quarantined_snapshot(row, partition, error)
    return snapshot_of(instance, partition)


def entity_snapshot_of_row(row: InstanceRow, partition: int) -> EntitySnapshot:
    """Return an entity as users see it, damaged or not."""
    try:
        entity = decode_entity(row.state)
        _check_id(row, entity.instance_id)
    except RecordCorrupt as error:
        return quarantined_entity(quarantined_snapshot(row, partition, error))
    return entity_snapshot(entity, partition)


def limit_snapshot_of_row(row: InstanceRow, partition: int) -> LimitSnapshot:
    """Return a limiter as users see it, damaged or not."""
    try:
        entity = decode_entity(row.state)
        _check_id(row, entity.instance_id)
    except RecordCorrupt as error:
        reason = quarantined_snapshot(row, partition, error).reason
        return LimitSnapshot(limiter_id=row.instance_id, partition=partition, reason=reason)
    limiter = entity.limiter or Limiter()
    return LimitSnapshot(
        limiter_id=row.instance_id,
        partition=partition,
        numbers=limiter.numbers,
        holders=len(limiter.holders),
        waiting=len(limiter.waiting),
        waiting_since=next(iter(limiter.waiting.values()), None),
        next_at=limiter.due if limiter.waiting else None,
    )


def check_replayable(core: Partition, entries: Iterable[Entry]) -> None:
    """Raise `RecordCorrupt` if entries change an instance that cannot be read.

    Skipping them would be wrong: they may have sent messages, whose numbers count.
    """
    unreadable = set(core.quarantined)
    if not unreadable:
        return
    for entry in entries:
        instance_id = instance_of(entry)
        if instance_id not in unreadable:
            continue
        if isinstance(entry, Removed):
            unreadable.discard(instance_id)
            continue
        raise RecordCorrupt(
            f"the journal changes instance {instance_id!r} "
            f"({type(entry).__name__}), which is {core.quarantined[instance_id].reason}"
        )
