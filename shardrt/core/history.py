"""History: the facts of one execution, and the only input of a replay.

Events are values. What the code asked for (`Action`) is recorded as it was asked, and what
came back (`Arrival`) as it came, so one list of events is both the audit trail and the
script from which an orchestrator is rebuilt. `OrchestratorStarted` separates the turns:
everything that arrived between two of them was seen by the code at once.

Payloads are JSON text, kept as `msgspec.Raw` and never looked into here. All times are
integers: microseconds since 1970 UTC. Event names are Durable Task's.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import TypeAlias, final

import msgspec
from msgspec import Raw

from shardrt.core.limiter import Numbers

NULL = Raw(b"null")
"""The payload that stands for None."""


class Status(StrEnum):
    """Where an instance stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATED = "Terminated"
    CANCELED = "Canceled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow any more."""
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED})


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of small values that travel inside events."""


@final
class Failure(Value, frozen=True, kw_only=True, array_like=False, omit_defaults=True):
    """An exception as data."""

    type: str
    """Class name of the exception, without its module."""
    message: str = ""
    details: str = ""
    """Traceback as text."""
    non_retryable: bool = False
    cause: Failure | None = None
    heartbeat: Raw = NULL
    """What the failed attempt of an activity last told of its progress."""


class Retry(Value, frozen=True, kw_only=True, array_like=False, omit_defaults=True):
    """A retry policy as data; times in microseconds. See `core.retry` for the arithmetic."""

    max_attempts: int
    first_interval: int
    backoff: float = 2.0
    max_interval: int | None = None
    timeout: int | None = None
    """No further attempt starts later than this after the first one."""
    jitter: float = 0.0
    """Each delay is multiplied by a random number from [1 - jitter, 1 + jitter]."""
    non_retryable: tuple[str, ...] = ()
    heartbeat: int | None = None
    """An attempt of an activity that is silent for longer has failed."""
    total: int | None = None
    """All attempts of an activity together: so long after it was asked for, it has failed."""

    def __post_init__(self) -> None:
        # JSON has no infinity: written as null, it would make the whole record unreadable.
        if not (isfinite(self.backoff) and isfinite(self.jitter)):
            raise ValueError("backoff and jitter of a retry policy must be finite")


class Quota(Value, frozen=True, kw_only=True, array_like=False, omit_defaults=True):
    """Which limit each attempt of an activity needs a slot of, and how much that allows."""

    limiter: str
    """Its id; see `core.limiter`."""
    numbers: Numbers


class Parent(Value, frozen=True):
    """Who waits for a sub-orchestration."""

    instance_id: str
    execution_id: str
    task_id: int
    name: str = ""


class _Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


# -- the frame of an execution ------------------------------------------------------------


class ExecutionStarted(_Event, frozen=True, tag="ExecutionStarted"):
    """First event of every execution."""

    at: int
    name: str
    input: Raw
    version: str | None = None
    parent: Parent | None = None
    tags: dict[str, str] | None = None


class OrchestratorStarted(_Event, frozen=True, tag="OrchestratorStarted"):
    """A turn of the orchestrator; `at` is its `current_utc_datetime`, never less than before."""

    at: int


class ExecutionCompleted(_Event, frozen=True, tag="ExecutionCompleted"):
    """The body returned or raised, or was cancelled."""

    at: int
    status: Status
    result: Raw = NULL
    failure: Failure | None = None


class ContinueAsNew(_Event, frozen=True, tag="ContinueAsNew"):
    """The body asked for a fresh execution with this input."""

    at: int
    input: Raw


class ExecutionTerminated(_Event, frozen=True, tag="ExecutionTerminated"):
    """Ended from outside; the code does not see it."""

    at: int
    reason: str = ""


class ExecutionSuspended(_Event, frozen=True, tag="ExecutionSuspended"):
    """Paused from outside; the code does not see it."""

    at: int
    reason: str = ""


class ExecutionResumed(_Event, frozen=True, tag="ExecutionResumed"):
    """Goes on after a suspension; the code does not see it."""

    at: int
    reason: str = ""


class ExecutionRewound(_Event, frozen=True, tag="ExecutionRewound"):
    """What failed runs again; the code does not see it. What came after this place is gone."""

    at: int
    reason: str = ""


# -- actions: what the code asked for in a turn ----------------------------------------------


class TaskScheduled(_Event, frozen=True, tag="TaskScheduled"):
    """Run an activity."""

    task_id: int
    name: str
    input: Raw
    retry: Retry | None = None
    timeout: int | None = None
    """Microseconds for one attempt."""
    speculative: bool = False
    limit: Quota | None = None
    """Each attempt waits for a slot."""


class TaskCanceled(_Event, frozen=True, tag="TaskCanceled"):
    """Nobody waits for this activity or child any more."""

    task_id: int
    cooperative: bool = False
    """A child given up because the execution was cancelled: it may clean up as well."""


class TimerCreated(_Event, frozen=True, tag="TimerCreated"):
    """Wake me at `fire_at`."""

    task_id: int
    fire_at: int


class TimerCanceled(_Event, frozen=True, tag="TimerCanceled"):
    """Nobody waits for this timer any more."""

    task_id: int


class SubOrchestrationInstanceCreated(_Event, frozen=True, tag="SubOrchestrationInstanceCreated"):
    """Start a child and tell me how it ends."""

    task_id: int
    instance_id: str
    name: str
    input: Raw
    version: str | None = None
    retry: Retry | None = None


class EventSent(_Event, frozen=True, tag="EventSent"):
    """Raise an external event on another instance."""

    task_id: int
    instance_id: str
    name: str
    data: Raw


class PatchMarked(_Event, frozen=True, tag="PatchMarked"):
    """The code took the new way at the patch `name`; a replay must take it again."""

    name: str
    deprecated: bool = False
    """There is no old way any more: code without the patch fits as well."""

    @property
    def task_id(self) -> int:
        """None: code with and without the patch must number its calls alike."""
        return 0


class EntityOperationCalled(_Event, frozen=True, tag="EntityOperationCalled"):
    """Have an entity do something and tell me how it went."""

    task_id: int
    instance_id: str
    """The entity."""
    name: str
    input: Raw
    section: str = ""
    """The critical section that it belongs to, if any."""


class EntityOperationSignaled(_Event, frozen=True, tag="EntityOperationSignaled"):
    """Have an entity do something, now or at `fire_at`."""

    task_id: int
    instance_id: str
    name: str
    input: Raw
    fire_at: int | None = None


class EntityLockRequested(_Event, frozen=True, tag="EntityLockRequested"):
    """Give me these entities for myself; `entities` are sorted, each named once."""

    task_id: int
    section: str
    entities: tuple[str, ...]


class EntityUnlockSent(_Event, frozen=True, tag="EntityUnlockSent"):
    """I have done with this entity."""

    task_id: int
    section: str
    instance_id: str


# -- arrivals: what came from outside, in the order of the inbox -------------------------------


class TaskCompleted(_Event, frozen=True, tag="TaskCompleted"):
    """An activity returned."""

    task_id: int
    at: int
    result: Raw


class TaskFailed(_Event, frozen=True, tag="TaskFailed"):
    """An activity failed for good."""

    task_id: int
    at: int
    failure: Failure


class TimerFired(_Event, frozen=True, tag="TimerFired"):
    """A timer is due."""

    task_id: int
    at: int


class SubOrchestrationInstanceCompleted(
    _Event, frozen=True, tag="SubOrchestrationInstanceCompleted"
):
    """A child returned."""

    task_id: int
    at: int
    result: Raw


class SubOrchestrationInstanceFailed(_Event, frozen=True, tag="SubOrchestrationInstanceFailed"):
    """A child failed or was terminated."""

    task_id: int
    at: int
    failure: Failure


class EntityOperationCompleted(_Event, frozen=True, tag="EntityOperationCompleted"):
    """An entity has done what it was called for."""

    task_id: int
    at: int
    result: Raw


class EntityOperationFailed(_Event, frozen=True, tag="EntityOperationFailed"):
    """The operation raised; the entity is as it was before."""

    task_id: int
    at: int
    failure: Failure


class EntityLockGranted(_Event, frozen=True, tag="EntityLockGranted"):
    """All entities of the request are ours."""

    task_id: int
    at: int


@final
class EventRaised(_Event, frozen=True, tag="EventRaised"):
    """An external event; names compare without case."""

    at: int
    name: str
    data: Raw


class CancelRequested(_Event, frozen=True, tag="CancelRequested"):
    """Somebody wants the execution to end: its body is cancelled, and may clean up first.

    At most one per execution. It is the only event before the first turn if there never is one.
    """

    at: int
    reason: str = ""

    @property
    def task_id(self) -> int:
        """None: calls are numbered from 1."""
        return 0


Action: TypeAlias = (
    TaskScheduled
    | TaskCanceled
    | TimerCreated
    | TimerCanceled
    | SubOrchestrationInstanceCreated
    | EventSent
    | PatchMarked
    | EntityOperationCalled
    | EntityOperationSignaled
    | EntityLockRequested
    | EntityUnlockSent
)

Arrival: TypeAlias = (
    TaskCompleted
    | TaskFailed
    | TimerFired
    | SubOrchestrationInstanceCompleted
    | SubOrchestrationInstanceFailed
    | EntityOperationCompleted
    | EntityOperationFailed
    | EntityLockGranted
    | EventRaised
    | CancelRequested
)

HistoryEvent: TypeAlias = (
    ExecutionStarted
    | OrchestratorStarted
    | ExecutionCompleted
    | ContinueAsNew
    | ExecutionTerminated
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionRewound
    | Action
    | Arrival
)
