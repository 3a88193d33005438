"""Effects: what a partition wants done once the record that caused it is durable."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.requests import Refusal, Result


class _Effect(msgspec.Struct, frozen=True, gc=False):
    pass


class Reply(_Effect):
    """Answer a request. `to` is whatever the host passed in with it."""

    to: object
    result: Result | Refusal | None


class RunActivity(_Effect):
    """Start an attempt. Its outcome must come back with the same four ids."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int
    name: str
    input: Raw
    timeout: int | None = None


class CancelActivity(_Effect):
    """Nobody wants the outcome any more."""

    instance_id: str
    execution_id: str
    task_id: int


class Send(_Effect):
    """The outbox holds messages for this partition up to `last` that may leave now."""

    destination: int
    last: int


class Confirm(_Effect):
    """Tell this partition that its messages up to `last` are committed here."""

    source: int
    last: int


Effect: TypeAlias = Reply | RunActivity | CancelActivity | Send | Confirm
