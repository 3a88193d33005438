"""What clients ask of an instance, and what they are answered.

A request is applied by the owner of the instance's partition and answered once the record that
contains it is durable. `Origin` makes a retry safe: an owner that has applied
(client, seq) already answers without applying it again. A client promises never to ask again
about any seq below `low`, which is how old entries are forgotten. Reads (`Get`, `GetHistory`,
`Export`, `GetEntity`, `GetSlot`, `Explain`, `Wait`) are outside of this: they change nothing, so
they are neither remembered nor do they hold `low` back, however long they wait.
"""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL, Failure, Status
from shardrt.core.limiter import Numbers


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Identity of a request: the client's session, its number there, the lowest still open."""

    client: str
    seq: int
    low: int


class _Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Start(_Request, frozen=True, tag="start"):
    """Create an instance. Answer: `Started`."""

    name: str
    input: Raw = NULL
    version: str | None = None
    tags: dict[str, str] | None = None
    start_at: int | None = None
    on_conflict: str = "fail"
    """``fail``, ``return`` (the one that is there), or ``restart`` (if it has ended)."""
    fresh: bool = False
    """The id was made for this very request and was never sent before, so no look-up of an
    existing instance is needed. A retry must clear it."""
    trace: str = ""
    """Who starts it, for tracing; see `core.trace_context`. Likewise below."""


class Raise(_Request, frozen=True, tag="raise"):
    """Deliver an external event. Answer: `Done`."""

    name: str
    data: Raw = NULL
    trace: str = ""


class Terminate(_Request, frozen=True, tag="terminate"):
    """End it from outside, children too if recursive. Answer: `Done`."""

    reason: str = ""
    recursive: bool = True


class Cancel(_Request, frozen=True, tag="cancel"):
    """Cancel its body, which may clean up before it ends. Answer: `Done`."""

    reason: str = ""


class Suspend(_Request, frozen=True, tag="suspend"):
    """Pause it; arrivals gather meanwhile. Answer: `Done`."""

    reason: str = ""


class Resume(_Request, frozen=True, tag="resume"):
    """Let it go on, or try its code again if it is parked. Answer: `Done`."""

    reason: str = ""


class Rewind(_Request, frozen=True, tag="rewind"):
    """Run again what failed. Answer: `Done`."""

    reason: str = ""


class Restart(_Request, frozen=True, tag="restart"):
    """Start a finished instance anew with its name and input. Answer: `Started`."""

    trace: str = ""


class Purge(_Request, frozen=True, tag="purge"):
    """Delete a finished instance and its history. Answer: `Purged`."""

    force: bool = False
    """Also one that is quarantined because its state cannot be read, finished or not."""
    execution_id: str = ""
    """Only this execution: who was listed may have been rewound or restarted since."""


class Get(_Request, frozen=True, tag="get"):
    """Answer: `Snapshot`, or null if there is no such instance."""


class GetHistory(_Request, frozen=True, tag="history"):
    """Answer: JSON array of history events, or null."""


class Export(_Request, frozen=True, tag="export"):
    """Answer: `exported.Exported` with its history, or null if there is no such instance."""


class Wait(_Request, frozen=True, tag="wait"):
    """Answer when the instance has ended: `Snapshot`."""


class SignalEntity(_Request, frozen=True, tag="signal"):
    """Have an entity do something, now or at `fire_at`. Answer: `Done`, once it is accepted."""

    name: str
    input: Raw = NULL
    fire_at: int | None = None


class CallEntity(_Request, frozen=True, tag="call-entity"):
    """Have an entity do something. Answer, once it is done: `EntityReply`."""

    name: str
    input: Raw = NULL


class GetEntity(_Request, frozen=True, tag="entity"):
    """Answer: `EntitySnapshot`, or null if there is no such entity."""


class Explain(_Request, frozen=True, tag="explain"):
    """Answer: `Explanation`, or null if there is no such instance."""

    times: bool = False
    """With when waits began that only the history tells of, unless reading that takes long."""


class GetSlot(_Request, frozen=True, tag="slot"):
    """Ask a limiter how a slot stands. Answer: `SlotSnapshot`, or null if it knows none."""

    slot: str


Request: TypeAlias = (
    Start
    | Raise
    | Terminate
    | Cancel
    | Suspend
    | Resume
    | Rewind
    | Restart
    | Purge
    | Get
    | GetHistory
    | Export
    | Wait
    | SignalEntity
    | CallEntity
    | GetEntity
    | Explain
    | GetSlot
)


class Started(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The instance is durable. `created` is False if it was there before."""

    instance_id: str
    execution_id: str
    created: bool = True


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """It is durable."""


class Purged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How many instances were deleted."""

    count: int


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """The committed state of an instance, as users see it. Times in µs since 1970 UTC."""

    instance_id: str
    execution_id: str
    name: str
    status: Status
    created_at: int
    updated_at: int
    partition: int
    version: str | None = None
    completed_at: int | None = None
    input: Raw = NULL
    output: Raw = NULL
    custom_status: Raw = NULL
    failure: Failure | None = None
    reason: str = ""
    """Why it was terminated, canceled or suspended, or why it is parked."""
    parent_instance_id: str | None = None
    tags: dict[str, str] | None = None


class EntityReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an operation returned, or how it failed."""

    result: Raw = NULL
    failure: Failure | None = None


class EntitySnapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """The committed state of an entity, as users see it."""

    instance_id: str
    name: str
    key: str
    created_at: int
    updated_at: int
    partition: int
    exists: bool = False
    """Whether it has a state."""
    state: Raw = NULL
    locked_by: str | None = None
    """The instance whose critical section has it."""
    backlog: int = 0
    """Operations and lock requests that wait."""
    reason: str = ""
    """Why its code cannot be run at present."""


class SlotSnapshot(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The committed state of a limiter, as somebody sees it who wants one slot of it."""

    position: int
    """1: it is next. 0: it has been granted."""
    waiting: int
    """All that wait."""
    holders: int
    numbers: Numbers
    due: int | None = None
    """When the next one is granted, if it is the time that is waited for; µs."""


class Awaited(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing that an instance waits for. Times in µs since 1970 UTC."""

    kind: str
    """``repair``, ``resume``, ``code``, ``turn``, ``start``, ``activity``, ``timer``, ``child``,
    ``entity``, ``lock``, ``slot`` (an activity waits for a slot of its limit), ``event``,
    ``events`` (if any, and which, is not known here), or ``unclaimed`` (events that have come,
    and that the code does not wait for)."""
    name: str = ""
    """Of the activity, child's orchestrator or event."""
    instance_id: str = ""
    """The child, the entity, or the limiter."""
    task_id: int | None = None
    attempt: int | None = None
    since: int | None = None
    due: int | None = None
    """When it fires, starts, or is tried again."""
    reason: str = ""


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an instance does not move: everything that it waits for."""

    instance: Snapshot
    awaited: tuple[Awaited, ...] = ()
    more: int = 0
    """How many further ones are left out."""


Result: TypeAlias = (
    Started
    | Done
    | Purged
    | Snapshot
    | EntityReply
    | EntitySnapshot
    | SlotSnapshot
    | Explanation
    | Raw
)
"""Raw is JSON, already encoded (history, exported instances)."""


@final
class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An error as an answer; `code` is an `errors.ShardrtError.code`."""

    code: str
    message: str
    retry_after_s: float | None = None
