"""Effects: what a partition wants done once the record that caused it is durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL
from shardrt.core.requests import Refusal, Result


class _Effect(msgspec.Struct, frozen=True, gc=False):
    pass


@final
class Reply(_Effect, frozen=True):
    """Answer a request. `to` is whatever the host passed in with it."""

    to: object
    result: Result | Refusal | None


@final
class RunActivity(_Effect, frozen=True):
    """Start an attempt. Its outcome must come back with the same four ids."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int
    name: str
    input: Raw
    timeout: int | None = None
    heartbeat_timeout: int | None = None
    heartbeat: Raw = NULL
    """What earlier attempts last told of their progress."""
    trace: str = ""
    """Of the instance."""


class CancelActivity(_Effect, frozen=True):
    """Nobody wants the outcome any more."""

    instance_id: str
    execution_id: str
    task_id: int


class Send(_Effect, frozen=True):
    """The outbox holds messages for this partition up to `last` that may leave now."""

    destination: int
    last: int


class Confirm(_Effect, frozen=True):
    """Tell this partition that its messages up to `last` are committed here."""

    source: int
    last: int


class Observed(_Effect, frozen=True):
    """Tell who looks on, but takes no part, that the record is durable."""

    tell: Callable[[], None]


Effect: TypeAlias = Reply | RunActivity | CancelActivity | Send | Confirm | Observed
