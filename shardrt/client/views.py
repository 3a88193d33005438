"""What users see of instances and their history: values with times and payloads decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.core import history as h
from shardrt.orchestration.payload import ANY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardrt.core.history import Failure, Status
    from shardrt.core.requests import Snapshot
    from shardrt.orchestration.sealing import Sealer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAYLOADS = ("input", "result", "data")

_decode_history = msgspec.json.Decoder(list[h.HistoryEvent]).decode


def to_datetime(micros: int) -> datetime:
    """Return a time given in µs since 1970 UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def to_micros(when: datetime | timedelta, now: datetime | None = None) -> int:
    """Return µs since 1970 UTC; naive times are UTC, a timedelta counts from now."""
    if isinstance(when, timedelta):
        when = (now or datetime.now(UTC)) + when  # noqa: TID251 - the user's own clock is meant
    elif when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """One event of an execution: the fields of its kind are set, the others None.

    Times are aware, in UTC; payloads are plain JSON values.
    """

    kind: str
    """Such as ``TaskScheduled``."""
    event_id: int
    """Position in the history of the execution, from 0."""
    timestamp: datetime
    """When it happened; for what the orchestrator asked for, the time of its turn."""
    task_id: int | None = None
    """Connects what was scheduled with its outcome."""
    name: str | None = None
    version: str | None = None
    input: Any = None
    result: Any = None
    data: Any = None
    """Of an external event."""
    status: Status | None = None
    failure: Failure | None = None
    reason: str | None = None
    fire_at: datetime | None = None
    instance_id: str | None = None
    """The other one: a child, whom an event was sent to, or the entity that was asked."""
    parent_instance_id: str | None = None
    tags: dict[str, str] | None = None
    retry: dict[str, Any] | None = None
    """The retry policy, times in µs."""
    timeout: float | None = None
    """Seconds for one attempt."""
    speculative: bool | None = None
    limit: dict[str, Any] | None = None
    """The id of the limiter that each attempt waits for, and its numbers; times in µs."""
    section: str | None = None
    """The critical section that a call of an entity, a lock or a release belongs to."""
    entities: tuple[str, ...] | None = None
    """What a lock was asked for."""
    deprecated: bool | None = None
    """Of a patch: there is no old way any more."""
    cooperative: bool | None = None
    """Of a call that was given up: it is a child that was cancelled with its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationStatus:
    """The committed state of an instance.

    `status` is a str enum: Pending Running Suspended Completed Failed Terminated Canceled.
    """

    instance_id: str
    name: str
    version: str | None
    status: Status
    input: Any
    output: Any
    """What it returned; None until it has Completed."""
    failure: Failure | None
    """Why it has Failed: `.type .message .details .cause`."""
    custom_status: Any
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    tags: dict[str, str] = field(default_factory=dict)
    parent_instance_id: str | None = None
    execution_id: str
    partition: int
    reason: str = ""
    """Why it was terminated, canceled or suspended, or why it cannot go on."""
    history: list[HistoryEvent] | None = None
    """If asked for."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.status.is_final


def status_of(snapshot: Snapshot, history: list[HistoryEvent] | None = None) -> OrchestrationStatus:
    """Return a snapshot as users see it."""
    done = snapshot.completed_at
    return OrchestrationStatus(
        instance_id=snapshot.instance_id,
        name=snapshot.name,
        version=snapshot.version,
        status=snapshot.status,
        input=ANY.decode(snapshot.input, "input"),
        output=ANY.decode(snapshot.output, "output"),
        failure=snapshot.failure,
        custom_status=ANY.decode(snapshot.custom_status, "custom status"),
        created_at=to_datetime(snapshot.created_at),
        updated_at=to_datetime(snapshot.updated_at),
        completed_at=None if done is None else to_datetime(done),
        tags=dict(snapshot.tags or {}),
        parent_instance_id=snapshot.parent_instance_id,
        execution_id=snapshot.execution_id,
        partition=snapshot.partition,
        reason=snapshot.reason,
        history=history,
    )


def history_of(encoded: Raw, sealer: Sealer | None = None) -> list[HistoryEvent]:
    """Return the events of an execution as users see them."""
    events = _decode_history(encoded)
    return list(_events(events if sealer is None else sealer.open_history(events)))


def _events(events: list[h.HistoryEvent]) -> Iterable[HistoryEvent]:
    turn = 0
    for event_id, event in enumerate(events):
        at: int = getattr(event, "at", turn)
        if isinstance(event, h.OrchestratorStarted):
            turn = at
        yield HistoryEvent(
            kind=type(event).__name__,
            event_id=event_id,
            timestamp=to_datetime(at),
            **_fields(event),
        )


def _fields(event: h.HistoryEvent) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "at"}
    for name in _PAYLOADS:
        if name in fields:
            fields[name] = ANY.decode(fields[name], name)
    if (fire_at := fields.get("fire_at")) is not None:
        fields["fire_at"] = to_datetime(fire_at)
    if (timeout := fields.get("timeout")) is not None:
        fields["timeout"] = timeout / 1e6
    if (retry := fields.get("retry")) is not None:
        fields["retry"] = msgspec.to_builtins(retry)
    if (limit := fields.get("limit")) is not None:
        fields["limit"] = _limit_shape(limit)
    if "parent" in fields:
        parent = fields.pop("parent")
        fields["parent_instance_id"] = parent.instance_id if parent else None
    return fields


def _limit_shape(limit: h.Quota) -> dict[str, Any]:
    numbers = {name: getattr(limit.numbers, name) for name in limit.numbers.__struct_fields__}
    return {"limiter": limit.limiter, **{k: v for k, v in numbers.items() if v}}
