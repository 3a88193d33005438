"""A checkpoint as one statement and its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.store.columns import encode_tags
from shardrt.store.postgres.arrays import bool_array, bytea_array, int8_array, text_array

if TYPE_CHECKING:
    from shardrt.store.base import Checkpoint, HistoryChunk, InstanceRow


def checkpoint_statement(checkpoint: Checkpoint) -> tuple[str, dict[str, object]]:
    """Return the name of the statement and its parameters.

    Rows are sorted, so that two of them lock in the same order.
    """
    rows = sorted(checkpoint.upserts, key=lambda row: row.instance_id)
    params = {
        "partition": checkpoint.partition,
        "epoch": checkpoint.epoch,
        "lsn": checkpoint.lsn,
        "state": checkpoint.state,
        **_rows(rows),
        **_chunks(sorted(checkpoint.chunks, key=lambda chunk: chunk.instance_id)),
    }
    if not (checkpoint.resets or checkpoint.deletes):
        return "checkpoint", params
    written = {row.instance_id for row in rows}
    gone = [instance_id for instance_id in checkpoint.deletes if instance_id not in written]
    params |= {
        "resets": text_array(checkpoint.resets),
        "deletes": text_array(checkpoint.deletes),
        "touched": text_array([*checkpoint.resets, *checkpoint.deletes]),
        "gone": text_array(gone),
    }
    return "checkpoint_and_forget", params


def _rows(rows: list[InstanceRow]) -> dict[str, object]:
    return {
        "instance_ids": text_array([row.instance_id for row in rows]),
        "execution_ids": text_array([row.execution_id for row in rows]),
        "names": text_array([row.name for row in rows]),
        "versions": text_array([row.version for row in rows]),
        "statuses": text_array([row.status for row in rows]),
        "created_ats": int8_array([row.created_at for row in rows]),
        "updated_ats": int8_array([row.updated_at for row in rows]),
        "completed_ats": int8_array([row.completed_at for row in rows]),
        "parent_ids": text_array([row.parent_id for row in rows]),
        "tags": text_array([encode_tags(row.tags) for row in rows]),
        "next_dues": int8_array([row.next_due for row in rows]),
        "actives": bool_array([row.active for row in rows]),
        "states": bytea_array([row.state for row in rows]),
    }


def _chunks(chunks: list[HistoryChunk]) -> dict[str, object]:
    return {
        "chunk_ids": text_array([chunk.instance_id for chunk in chunks]),
        "chunk_executions": text_array([chunk.execution_id for chunk in chunks]),
        "chunk_seqs": int8_array([chunk.seq for chunk in chunks]),
        "chunk_events": bytea_array([chunk.events for chunk in chunks]),
    }
