"""Entities: state with operations, one at a time; and what they are asked and answer.

An entity id is an instance id of the form ``@name@key``; the name is in lower case, the key may
contain anything. Its inbox holds operations and lock requests in the order in which they came,
so whatever one sender asks for happens in that order.

Payloads, here as everywhere in the core, are JSON text that nobody looks into. A state is a
tuple of none or one of them, because JSON has falsy values that are states all the same.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL, Failure, Parent
from shardrt.core.limiter import Limiter
from shardrt.core.requests import Origin

State: TypeAlias = tuple[Raw, ...]
"""Empty: there is no state."""

ANSWERS_MAX = 16
"""So many answers to clients are kept per entity, to be given again if a client asks again."""
OPERATIONS_MAX = 200
"""So many operations at most are one step, and so one entry of the journal."""


def entity_id(name: str, key: str) -> str:
    """Return the id of an entity."""
    return f"@{name.lower()}@{key}"


def is_entity_id(instance_id: str) -> bool:
    """Whether an id is that of an entity; instances never have one of that form."""
    return instance_id[:1] == "@" and instance_id.find("@", 2) > 0


def name_and_key(instance_id: str) -> tuple[str, str]:
    """Return the two parts of an entity id."""
    name, _, key = instance_id[1:].partition("@")
    return name, key


class _Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Operation(_Item, frozen=True, tag="operation"):
    """Something to be done by an entity."""

    name: str
    input: Raw = NULL
    caller: Parent | None = None
    """The call of an instance that waits for the outcome."""
    origin: Origin | None = None
    """The request of a client that waits for it."""


class LockRequest(_Item, frozen=True, tag="lock"):
    """A critical section that wants the entity to itself, in its place in the queue."""

    section: str
    holder: Parent
    entities: tuple[str, ...]
    """All that it wants, in the order in which it takes them."""
    index: int
    """Which of them this one is."""


Item: TypeAlias = Operation | LockRequest


class Lock(msgspec.Struct, omit_defaults=True):
    """The critical section that has an entity to itself."""

    request: LockRequest
    inbox: list[Operation] = []
    """Operations of the section: only those are carried out."""
    released: bool = False
    """It is over once its operations are done."""
    chain: bool = False
    """The end was told to the first entity only and is passed on to the next one."""

    @property
    def section(self) -> str:
        return self.request.section


class Delayed(_Item, frozen=True):
    """A signal for later."""

    at: int
    operation: Operation


class Answered(_Item, frozen=True):
    """How a client's call went."""

    client: str
    seq: int
    result: Raw = NULL
    failure: Failure | None = None


class Entity(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One entity."""

    instance_id: str
    name: str
    created_at: int
    updated_at: int
    """Time of the last change; no operation is earlier."""
    state: State = ()
    inbox: list[Item] = []
    """Invariant: does not begin with a lock request unless the entity is locked."""
    lock: Lock | None = None
    delayed: dict[int, Delayed] = {}
    """Number → signal that is not due yet."""
    numbers: int = 0
    """Delayed signals so far."""
    turn: int = 0
    """Counts steps and changes of the lock: a step that was begun before one is out of date."""
    parked: str = ""
    """Why its code cannot be run at present; empty if it can."""
    answers: list[Answered] = []
    """The newest answers to clients that may still repeat their calls, oldest first."""
    limiter: Limiter | None = None
    """It is no entity but a limiter, and this is all of it; see `core.limiter`."""

    @property
    def queue(self) -> list[Item] | list[Operation]:
        """What is carried out next: the inbox, or what its holder asks for."""
        return self.inbox if self.lock is None else self.lock.inbox

    def has_news(self) -> bool:
        """Whether there is an operation to carry out now."""
        if self.lock is not None:
            return bool(self.lock.inbox)
        return bool(self.inbox)

    @property
    def is_active(self) -> bool:
        """Whether it needs its owner's attention without anything arriving or falling due."""
        return self.has_news() or bool(self.inbox)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is lost if it is forgotten."""
        return not (self.state or self.inbox or self.lock or self.delayed or self.limiter)

    @property
    def next_due(self) -> int | None:
        """When its earliest delayed signal is due."""
        if self.limiter is not None:
            return self.limiter.due
        return min((each.at for each in self.delayed.values()), default=None)

    def operations(self, limit: int) -> tuple[Operation, ...]:
        """Return what to carry out next, in order."""
        ready: list[Operation] = []
        for item in self.queue[:limit]:
            if isinstance(item, LockRequest):
                break
            ready.append(item)
        return tuple(ready)


# -- a step of the code --------------------------------------------------------------------------


class EntityWork(msgspec.Struct, frozen=True, gc=False):
    """Operations for an entity, to be carried out one after the other at `at`."""

    instance_id: str
    token: str
    """The step must bring it back; no two works ever have the same."""
    at: int
    turn: int
    name: str
    state: State
    operations: tuple[Operation, ...]


class OperationResult(_Item, frozen=True):
    """How an operation went."""

    result: Raw = NULL
    failure: Failure | None = None


class SignalSent(_Item, frozen=True, tag="signal"):
    """An operation signalled another entity."""

    instance_id: str
    name: str
    input: Raw = NULL
    fire_at: int | None = None


class OrchestrationStarted(_Item, frozen=True, tag="start"):
    """An operation started an orchestration."""

    instance_id: str
    name: str
    input: Raw = NULL
    version: str | None = None


Output: TypeAlias = SignalSent | OrchestrationStarted


class EntityStep(msgspec.Struct, frozen=True, gc=False):
    """What came of the first operations of a work item."""

    instance_id: str
    token: str
    results: tuple[OperationResult, ...] = ()
    """One for each operation carried out, in order."""
    state: State | None = None
    """The new one; None if it is as it was."""
    outputs: tuple[Output, ...] = ()
    parked: str = ""
    """Why nothing could be carried out."""
