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
from shardrt.core.limiter import Numbers


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
    trace: str = ""
    """Of the parent; see `core.trace_context`. Likewise below."""


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
    trace: str = ""


class TerminateChild(_Message, frozen=True, tag="terminate"):
    """End a child, if it still is what that task of that very execution has started."""

    instance_id: str
    parent_execution_id: str
    task_id: int
    reason: str


class CancelChild(_Message, frozen=True, tag="cancel"):
    """Cancel a child, if it still is what that task of that very execution has started."""

    instance_id: str
    parent_execution_id: str
    task_id: int
    reason: str


class RewindChild(_Message, frozen=True, tag="rewind"):
    """Call a child again for a parent that was rewound: what it has achieved stays.

    If it has failed it is rewound itself, if it is open it only learns its parent's new
    execution, if it has completed it answers again; else it is started anew.
    """

    instance_id: str
    name: str
    input: Raw
    parent: Parent
    previous_execution_id: str
    """Of the parent: the child belongs to the call only if it knows that one."""
    version: str | None = None
    attempt: int = 1
    trace: str = ""


class StartInstance(_Message, frozen=True, tag="start-instance"):
    """Create an instance that nobody waits for; one of that id that is open stays as it is."""

    instance_id: str
    name: str
    input: Raw
    version: str | None = None


class CallEntity(_Message, frozen=True, tag="call"):
    """Have an entity do something, and tell the caller how it went."""

    instance_id: str
    name: str
    input: Raw
    caller: Parent
    section: str = ""


class SignalEntity(_Message, frozen=True, tag="signal"):
    """Have an entity do something, now or later."""

    instance_id: str
    name: str
    input: Raw
    fire_at: int | None = None


class EntityAnswered(_Message, frozen=True, tag="answered"):
    """How an operation went, to the instance that called for it."""

    instance_id: str
    """The caller."""
    execution_id: str
    task_id: int
    result: Raw = NULL
    failure: Failure | None = None


class LockEntity(_Message, frozen=True, tag="lock"):
    """Queue for an entity; whoever gets it queues for the next one, the last tells the holder."""

    instance_id: str
    """``entities[index]``."""
    section: str
    holder: Parent
    entities: tuple[str, ...]
    index: int = 0


class LockGranted(_Message, frozen=True, tag="granted"):
    """All entities of a critical section are its own."""

    instance_id: str
    """The holder."""
    execution_id: str
    section: str


class UnlockEntity(_Message, frozen=True, tag="unlock"):
    """A critical section has done with an entity.

    With `chain` the section may not have been granted yet: the message then follows the
    request from one entity to the next, on the same lane, until it has caught up with it.
    """

    instance_id: str
    section: str
    chain: bool = False


class SlotWanted(_Message, frozen=True, tag="slot-wanted"):
    """An attempt of an activity waits for a slot of a limit."""

    instance_id: str
    """The limiter."""
    slot: str
    numbers: Numbers
    as_of: int
    """When the activity was called."""


class SlotGranted(_Message, frozen=True, tag="slot-granted"):
    """An attempt may run. If nobody waits for it any more, its return is on the way."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int


class SlotReturned(_Message, frozen=True, tag="slot-returned"):
    """An attempt needs its slot no more, whether it had got it or not."""

    instance_id: str
    """The limiter."""
    slot: str


Message: TypeAlias = (
    StartChild
    | ChildEnded
    | DeliverEvent
    | TerminateChild
    | CancelChild
    | RewindChild
    | StartInstance
    | CallEntity
    | SignalEntity
    | EntityAnswered
    | LockEntity
    | LockGranted
    | UnlockEntity
    | SlotWanted
    | SlotGranted
    | SlotReturned
)
