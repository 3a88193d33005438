"""What the stores share about reading in pages: tokens, page sizes and dense journals."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from shardrt.errors import InputInvalid, RecordCorrupt
from shardrt.store.base import Checkpoint, InstanceRow, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

START = (-(2**63), "")
"""Sorts before every instance."""

PAGE_BYTES = 4 * 2**20
"""About how much a stream holds in memory at a time."""

PAGE_ROWS_MAX = 1000


class _Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    created_at: int
    instance_id: str


def encode_token(row: InstanceRow) -> str:
    """Return the token that goes on behind `row`."""
    content = msgspec.json.encode(_Token(row.created_at, row.instance_id))
    return base64.urlsafe_b64encode(content).decode()


def decode_token(token: str | None) -> tuple[int, str]:
    """Return the (created_at, instance_id) to go on behind. Raises `InputInvalid`."""
    if token is None:
        return START
    try:
        content = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        position = msgspec.json.decode(content, type=_Token)
    except (binascii.Error, UnicodeError, msgspec.MsgspecError) as error:
        raise InputInvalid("page token: not one that this store has given out") from error
    if not -(2**63) <= position.created_at < 2**63:
        raise InputInvalid("page token: not one that this store has given out")
    return position.created_at, position.instance_id


def check_limit(limit: int) -> None:
    """Refuse a page size that makes no sense."""
    if limit < 1:
        raise InputInvalid(f"limit must be at least 1, not {limit}")


def page_of(rows: Sequence[InstanceRow], limit: int) -> Page:
    """Make a page of up to ``limit + 1`` rows; the extra one tells that there are more."""
    token = encode_token(rows[limit - 1]) if len(rows) > limit else None
    return Page(tuple(rows[:limit]), token)


class PageSize:
    """How many rows to ask for next, such that a page has about `PAGE_BYTES`."""

    def __init__(self, rows: int = 16) -> None:
        self.rows = rows

    def learn(self, sizes: Sequence[int]) -> None:
        mean = max(1, sum(sizes) // max(1, len(sizes)))
        self.rows = max(1, min(PAGE_ROWS_MAX, self.rows * 8, PAGE_BYTES // mean))


def check_next(partition: int, expected: int, lsn: int) -> None:
    """Raise `RecordCorrupt` if the journal has a gap before `lsn`."""
    if lsn != expected:
        raise RecordCorrupt(
            f"partition {partition}: journal record {expected} is missing; the next is {lsn}"
        )


class OutOfBounds(ValueError):
    """A checkpoint would go back, or get ahead of the journal.

    Either the caller is wrong, or the store has lost what it had committed.
    """


def check_bounds(checkpoint: Checkpoint, checkpoint_lsn: int, commit_lsn: int) -> None:
    """Refuse a checkpoint that would go back, or get ahead of the journal."""
    if not checkpoint_lsn <= checkpoint.lsn <= commit_lsn:
        raise OutOfBounds(
            f"partition {checkpoint.partition}: checkpoint at LSN {checkpoint.lsn} is outside "
            f"{checkpoint_lsn}..{commit_lsn}"
        )
