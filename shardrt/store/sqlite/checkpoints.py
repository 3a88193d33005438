"""Writing a checkpoint, within the transaction of the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.errors import EpochFenced
from shardrt.store.columns import encode_tags
from shardrt.store.paging import check_bounds
from shardrt.store.sqlite.statements import SQL

if TYPE_CHECKING:
    import sqlite3

    from shardrt.store.base import Checkpoint


def write_checkpoint(connection: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    """Write all of it. Deletions come first: what is deleted may be created again."""
    _fence(connection, checkpoint)
    number = checkpoint.partition
    connection.execute(SQL["save_state"], {"partition": number, "state": checkpoint.state})
    deleted = [{"partition": number, "instance_id": each} for each in checkpoint.deletes]
    connection.executemany(SQL["delete_instance"], deleted)
    connection.executemany(SQL["delete_history"], deleted)
    connection.executemany(SQL["upsert_instance"], _rows(checkpoint))
    reset = [{"partition": number, "instance_id": each} for each in checkpoint.resets]
    connection.executemany(SQL["reset_history"], reset)
    connection.executemany(SQL["upsert_history"], _chunks(checkpoint))


def _fence(connection: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    key = {"partition": checkpoint.partition, "epoch": checkpoint.epoch, "lsn": checkpoint.lsn}
    if connection.execute(SQL["fence_checkpoint"], key).rowcount:
        return
    for epoch, checkpoint_lsn, commit_lsn in connection.execute(
        SQL["bounds"], {"partition": checkpoint.partition}
    ):
        if epoch == checkpoint.epoch:
            check_bounds(checkpoint, checkpoint_lsn, commit_lsn)
    raise EpochFenced(f"partition {checkpoint.partition}: epoch {checkpoint.epoch} is over")


def _rows(checkpoint: Checkpoint) -> list[tuple[object, ...]]:
    return [
        (
            checkpoint.partition,
            row.instance_id,
            row.execution_id,
            row.name,
            row.version,
            row.status,
            row.created_at,
            row.updated_at,
            row.completed_at,
            row.parent_id,
            encode_tags(row.tags),
            row.next_due,
            row.active,
            row.state,
        )
        for row in checkpoint.upserts
    ]


def _chunks(checkpoint: Checkpoint) -> list[tuple[object, ...]]:
    return [
        (checkpoint.partition, chunk.instance_id, chunk.execution_id, chunk.seq, chunk.events)
        for chunk in checkpoint.chunks
    ]
