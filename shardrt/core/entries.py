"""Journal entries: what happened to a partition, so that applying them rebuilds it.

Entries are written once decided and never interpreted with a clock, a random number or user
code: all of that is in their fields. A record of the journal is the list of entries between
two commits (`core.codec`). Names are in the past tense; `at` is hub time in µs.

Appending a field with a default is compatible; everything else needs a new format version.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.entity import OperationResult, Output, State
from shardrt.core.history import NULL, Action, Arrival, EventRaised, Failure, HistoryEvent, Parent
from shardrt.core.messages import Message
from shardrt.core.requests import Origin
from shardrt.core.work import Outcome


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Taken(_Entry, frozen=True, tag="Taken"):
    """A new owner recovered the partition under `epoch`."""

    at: int
    epoch: int


class Created(_Entry, frozen=True, tag="Created"):
    """A client started an instance; one of that id that had ended is replaced."""

    at: int
    instance_id: str
    execution_id: str
    name: str
    input: Raw = NULL
    version: str | None = None
    tags: dict[str, str] | None = None
    start_at: int | None = None
    created_by: Origin | None = None
    trace: str = ""
    """Who started it; see `core.trace_context`."""


class Arrived(_Entry, frozen=True, tag="Arrived"):
    """The outcome of an activity."""

    instance_id: str
    event: Arrival


class Retried(_Entry, frozen=True, tag="Retried"):
    """An attempt of an activity failed, and another one starts at `retry_at`."""

    at: int
    instance_id: str
    task_id: int
    failure: Failure
    retry_at: int


class Fired(_Entry, frozen=True, tag="Fired"):
    """Timers are due: the code's own, delayed starts and signals, and next attempts."""

    at: int
    instance_id: str
    task_ids: tuple[int, ...]


class Raised(_Entry, frozen=True, tag="Raised"):
    """A client raised an external event."""

    instance_id: str
    event: EventRaised
    origin: Origin | None = None
    trace: str = ""
    """Who raised it."""


class Stepped(_Entry, frozen=True, tag="Stepped"):
    """The code took a turn at `at`, saw the oldest `consumed` arrivals, and asked for things."""

    at: int
    instance_id: str
    consumed: int
    actions: tuple[Action, ...] = ()
    outcome: Outcome | None = None
    custom_status: tuple[Raw, ...] = ()
    """The new one, if the turn set it. (``Raw | None`` cannot be decoded: it takes null only.)"""


class Received(_Entry, frozen=True, tag="Received"):
    """A message of another partition was accepted."""

    at: int
    source: int
    seq: int
    message: Message
    retry_at: int | None = None
    """For a failed child: when it is started again."""


class PutAside(_Entry, frozen=True, tag="PutAside"):
    """A message was accepted for an instance whose state cannot be read; see `core.quarantine`."""

    at: int
    source: int
    seq: int
    message: Message


class TakenUp(_Entry, frozen=True, tag="TakenUp"):
    """The oldest message put aside for an instance has reached it."""

    at: int
    instance_id: str
    retry_at: int | None = None
    """As in `Received`."""


class Acknowledged(_Entry, frozen=True, tag="Acknowledged"):
    """Another partition has committed our messages up to `last`."""

    destination: int
    last: int


class Terminated(_Entry, frozen=True, tag="Terminated"):
    """A client ended an instance."""

    at: int
    instance_id: str
    reason: str = ""
    recursive: bool = True
    origin: Origin | None = None


class CancelRequested(_Entry, frozen=True, tag="CancelRequested"):
    """A client wants an instance to end; its code is told, unless it has not begun."""

    at: int
    instance_id: str
    reason: str = ""
    origin: Origin | None = None


class Suspended(_Entry, frozen=True, tag="Suspended"):
    """A client paused an instance."""

    at: int
    instance_id: str
    reason: str = ""
    origin: Origin | None = None


class Resumed(_Entry, frozen=True, tag="Resumed"):
    """A client let an instance go on."""

    at: int
    instance_id: str
    reason: str = ""
    origin: Origin | None = None


class Rewound(_Entry, frozen=True, tag="Rewound"):
    """A failed instance goes on from before its failure; see `core.rewinding`."""

    at: int
    instance_id: str
    execution_id: str
    history: tuple[HistoryEvent, ...]
    """All that is left of it."""
    inbox: tuple[Arrival, ...] = ()
    orphans: tuple[tuple[int, str], ...] = ()
    parent: Parent | None = None
    """The execution that calls it from now on, if that is what rewinds it."""
    attempt: int = 1
    """Of that call."""
    reason: str = ""
    origin: Origin | None = None


class Deleted(_Entry, frozen=True, tag="Deleted"):
    """A finished instance, or an empty entity, was purged; a limiter has forgotten its holders."""

    at: int
    instance_id: str
    origin: Origin | None = None


class Removed(_Entry, frozen=True, tag="Removed"):
    """An instance whose state cannot be read was purged by force."""

    at: int
    instance_id: str
    origin: Origin | None = None


class Forgot(_Entry, frozen=True, tag="Forgot"):
    """Sessions of clients not heard of for long were dropped."""

    clients: tuple[str, ...]


class EntityAsked(_Entry, frozen=True, tag="EntityAsked"):
    """A client called or signalled an entity, which comes to be if there was none."""

    at: int
    instance_id: str
    name: str
    input: Raw = NULL
    fire_at: int | None = None
    origin: Origin | None = None
    waits: bool = False
    """Whether the client wants to know how it went."""


class EntityStepped(_Entry, frozen=True, tag="EntityStepped"):
    """The code carried out the oldest ``len(results)`` operations that were in order."""

    at: int
    instance_id: str
    results: tuple[OperationResult, ...] = ()
    state: State | None = None
    """The new one; null if it is as it was."""
    outputs: tuple[Output, ...] = ()
    parked: str = ""
    """Why nothing could be carried out; then there is nothing else."""


Entry: TypeAlias = (
    Taken
    | Created
    | Arrived
    | Retried
    | Fired
    | Raised
    | Stepped
    | Received
    | PutAside
    | TakenUp
    | Acknowledged
    | Terminated
    | CancelRequested
    | Suspended
    | Resumed
    | Rewound
    | Deleted
    | Removed
    | Forgot
    | EntityAsked
    | EntityStepped
)


def instance_of(entry: Entry) -> str | None:
    """Return the instance or entity that must be in memory before the entry is applied, if any."""
    if isinstance(entry, Received):
        return entry.message.instance_id
    return getattr(entry, "instance_id", None)
