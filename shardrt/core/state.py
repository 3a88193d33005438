"""What a partition remembers. Everything here is rebuilt from its journal.

`PartitionState` is plain data: encode it, decode it, apply the same entry to both, and they
are equal again (invariant I3; the tests do so after every entry). What can be derived from it
(ready queue, timer heap, dirty set) lives in `core.partition` instead.

Instances and entities may be absent from memory: the host loads them before it lets an entry
touch them.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.entity import Entity
from shardrt.core.entries import PutAside
from shardrt.core.history import (
    NULL,
    Arrival,
    Failure,
    HistoryEvent,
    Parent,
    Quota,
    Retry,
    Status,
)
from shardrt.core.messages import Message
from shardrt.core.requests import Origin
from shardrt.core.timers import DUE_MAX

START_TIMER = -1
"""Key in `Instance.timers` of a delayed start; the code's own task ids are never negative."""


class Pending(msgspec.Struct, omit_defaults=True):
    """An activity that has no recorded outcome yet."""

    name: str
    input: Raw
    first_at: int
    attempt: int = 1
    retry: Retry | None = None
    timeout: int | None = None
    retry_at: int | None = None
    """Waiting for its next attempt until then; None while an attempt may be running."""
    speculative: bool = False
    heartbeat: Raw = NULL
    """The progress of the attempts that failed, as last told."""
    limit: Quota | None = None
    granted: bool = False
    """The present attempt has its slot."""

    @property
    def deadline(self) -> int | None:
        """When it has failed for good, whatever its attempts do."""
        retry = self.retry
        if retry is None or retry.total is None:
            return None
        return min(self.first_at + retry.total, DUE_MAX)

    @property
    def has_slot(self) -> bool:
        """Whether its attempt has a slot or wants one: then it is to be given back."""
        return self.limit is not None and self.retry_at is None

    @property
    def waits_for_slot(self) -> bool:
        """Whether its attempt may not run yet."""
        return self.limit is not None and self.retry_at is None and not self.granted

    @property
    def is_asleep(self) -> bool:
        """Whether no attempt has begun yet, and none will before a message says so.

        NB: attempts before this one may have left outcomes behind; see `host.transactional`.
        """
        return self.waits_for_slot and self.attempt == 1


class Child(msgspec.Struct, omit_defaults=True):
    """A sub-orchestration that has not ended yet, as its parent knows it."""

    instance_id: str
    first_at: int = 0
    attempt: int = 1
    retry: Retry | None = None
    retry_at: int | None = None
    name: str = ""
    """Name, version and input are kept only for a child that may be started again."""
    version: str | None = None
    input: Raw = NULL


class Leaving(msgspec.Struct):
    """A child that was cancelled with its parent, and may still clean up. Nobody waits for it."""

    instance_id: str
    execution_id: str
    """Of the parent, when it called the child."""


class Section(msgspec.Struct, omit_defaults=True):
    """A critical section over entities, as its holder knows it."""

    task_id: int
    entities: list[str]
    """Not released yet."""
    granted: bool = False


class Instance(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One instance and its current execution."""

    instance_id: str
    execution_id: str
    name: str
    created_at: int
    updated_at: int
    """Time of the last change; no turn of the code is earlier."""
    version: str | None = None
    status: Status = Status.PENDING
    input: Raw = NULL
    output: Raw = NULL
    failure: Failure | None = None
    custom_status: Raw = NULL
    reason: str = ""
    """Why it was terminated, canceled or suspended."""
    parked: str = ""
    """Why its code cannot be run at present; empty if it can."""
    completed_at: int | None = None
    seed: str = ""
    """The execution id that the code sees, if it is not `execution_id`: what it derived from
    that, child ids say, must be the same when it is rewound."""
    parent: Parent | None = None
    attempt: int = 1
    """Which attempt of its parent's call it is."""
    tags: dict[str, str] | None = None
    created_by: Origin | None = None
    """The request that created it: a repeated start is recognised by it."""
    suspended: bool = False
    turn: int = 0
    """Turns of the code so far. Invariant: as many `OrchestratorStarted` in its history."""
    timers: dict[int, int] = {}
    """Task id → when it fires."""
    pending: dict[int, Pending] = {}
    children: dict[int, Child] = {}
    inbox: list[Arrival] = []
    """Arrived, not yet seen by the code. What a failed one had not seen waits for a rewind."""
    history_length: int = 0
    """All events of this execution, stored or not."""
    tail: list[HistoryEvent] = []
    """The newest events, those no checkpoint holds yet."""
    stale_history: bool = False
    """The store may hold history of an earlier execution."""
    calls: dict[int, str] = {}
    """Task id → entity that has not answered yet."""
    locks: dict[str, Section] = {}
    """Critical sections asked for and not released. Invariant: none once it has ended."""
    trace: str = ""
    """Where it stands in its trace, if it is in one; see `core.trace_context`."""
    has_run: bool = False
    """An execution before this one has run code, whatever `turn` says."""
    cancel_requested: bool = False
    """Of this execution: that is done once, and its code need not have seen it yet."""
    leaving: dict[int, Leaving] = {}
    """Children that are still to be reached by a termination, until they have ended. A failed
    instance keeps them, for it may be rewound."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.completed_at is not None

    @property
    def has_begun(self) -> bool:
        """Whether any of its code has run."""
        return self.turn > 0 or self.has_run

    @property
    def next_due(self) -> int | None:
        """When its earliest timer of any kind is due."""
        if not (self.timers or self.pending or self.children):  # as of all that have ended
            return None
        due = list(self.timers.values())
        for pending in self.pending.values():
            due += [at for at in (pending.retry_at, pending.deadline) if at is not None]
        due += [c.retry_at for c in self.children.values() if c.retry_at is not None]
        return min(due, default=None)

    def has_news(self) -> bool:
        """Whether its code should take a turn. Asked often; a property would cost twice as much."""
        if not self.inbox and self.turn:  # most often
            return False
        return not (self.completed_at is not None or self.suspended or START_TIMER in self.timers)

    @property
    def is_active(self) -> bool:
        """Whether it needs its owner's attention without anything arriving or falling due."""
        if self.completed_at is not None:
            return False
        if self.has_news() or self.parked:
            return True
        return any(not each.is_asleep for each in self.pending.values())


Resident: TypeAlias = Instance | Entity
"""What has a row in the store, and is in memory when something concerns it."""


class Lane(msgspec.Struct, omit_defaults=True):
    """Messages owed to one other partition, oldest first.

    Invariant: ``messages`` are exactly the sequence numbers ``acknowledged + 1 … last``.
    """

    acknowledged: int = 0
    messages: list[Message] = []

    @property
    def last(self) -> int:
        """The newest sequence number assigned."""
        return self.acknowledged + len(self.messages)


class Session(msgspec.Struct):
    """The requests of one client that were applied and may still be repeated."""

    used_at: int
    low: int
    applied: set[int]


class PartitionState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """All of it."""

    partition: int
    partitions: int
    epoch: int = 0
    instances: dict[str, Instance] = {}
    entities: dict[str, Entity] = {}
    lanes: dict[int, Lane] = {}
    """The outbox: destination → what it is owed."""
    received: dict[int, int] = {}
    """The dedup vector: source → last sequence number applied."""
    sessions: dict[str, Session] = {}
    aside: dict[str, list[PutAside]] = {}
    """Messages for instances whose state cannot be read, oldest first."""


class Head(msgspec.Struct, omit_defaults=True):
    """The part of the state that a checkpoint stores with the partition; instances have rows."""

    partition: int
    partitions: int
    epoch: int = 0
    lanes: dict[int, Lane] = {}
    received: dict[int, int] = {}
    sessions: dict[str, Session] = {}
    aside: dict[str, list[PutAside]] = {}
