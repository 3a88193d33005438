"""Messages between partitions: the only way one partition ever changes another.

Each ordered pair of partitions is a stream with contiguous sequence numbers, assigned in the
sender's journal (see `core.state.Lane`). A partition's messages to itself travel the
same way: one path, one proof.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL, Failure, Parent, Status


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class StartChild(_Message, frozen=True, tag="start"):
    """Create a sub-orchestration."""

    instance_id: str
    name: str
    input: Raw
    parent: Parent
    version: str | None = None
    attempt: int = 1


class ChildEnded(_Message, frozen=True, tag="ended"):
    """How a sub-orchestration ended, to its parent."""

    instance_id: str
    """The parent."""
    execution_id: str
    task_id: int
    attempt: int
    status: Status
    result: Raw = NULL
    failure: Failure | None = None


class DeliverEvent(_Message, frozen=True, tag="event"):
    """An external event sent by an instance."""

    instance_id: str
    name: str
    data: Raw


class TerminateChild(_Message, frozen=True, tag="terminate"):
    """End a child, if it still is what that task of that very execution has started."""

    instance_id: str
    parent_execution_id: str
    task_id: int
    reason: str


Message: TypeAlias = StartChild | ChildEnded | DeliverEvent | TerminateChild
