"""Instances and filters as SQL knows them: the columns and parameters of both SQL stores."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.store.base import Checkpoint, Filter, InstanceRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


def encode_tags(tags: dict[str, str] | None) -> str | None:
    """Return the tags as JSON text."""
    return None if tags is None else msgspec.json.encode(tags).decode()


def instance_of(row: Sequence[Any]) -> InstanceRow:
    """Return the instance of a row of the columns that every SELECT of instances lists."""
    *head, tags, next_due, active, state = row
    # The column is only to search by: the state has the tags, and is judged by whoever reads it.
    decoded = None
    with suppress(msgspec.MsgspecError):
        decoded = None if tags is None else _decode_tags(tags)
    return InstanceRow(*head, decoded, next_due, bool(active), state)  # type: ignore[call-arg]


def filter_params(where: Filter) -> dict[str, object]:
    """Return the filter's conditions as parameters; None = no condition.

    `status` is left to the store, as each has its own idea of a list.
    """
    return {
        "name": where.name,
        "id_prefix": where.id_prefix,
        "created_from": where.created_from,
        "created_to": where.created_to,
        "completed_from": where.completed_from,
        "completed_to": where.completed_to,
        "tags": encode_tags(where.tags or None),
        "entities": where.entities,
        "limits": where.limits,
    }


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """Return how much a checkpoint writes, but for keys and columns."""
    return (
        len(checkpoint.state)
        + sum(len(row.state) for row in checkpoint.upserts)
        + sum(len(chunk.events) for chunk in checkpoint.chunks)
    )
