"""Instances and history as the HTTP API shows them: camelCase, ISO times, payloads spliced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.client.views import history_of, to_datetime, to_micros
from shardrt.core.history import NULL, Status
from shardrt.errors import InputInvalid

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.client.explaining import Awaited, Explanation
    from shardrt.core.requests import Snapshot


_ENDED_FROM_OUTSIDE = frozenset({Status.TERMINATED, Status.CANCELED})


def iso(micros: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC, to the microsecond."""
    if micros is None:
        return None
    return to_datetime(micros).isoformat(timespec="microseconds").replace("+00:00", "Z")


def micros_of(text: str | None, what: str) -> int | None:
    """Return an ISO 8601 time as µs since 1970; without an offset it is UTC."""
    if not text:
        return None
    try:
        # A "+" of an offset arrives as a space if the client did not quote it.
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return to_micros(when.replace(tzinfo=when.tzinfo or UTC))
    except (ValueError, OverflowError):
        raise InputInvalid(f"{what}: not an ISO 8601 time: {text!r}") from None


def instance_shape(snapshot: Snapshot, *, show_input: bool = True) -> dict[str, Any]:
    """Return an instance as an object."""
    shape: dict[str, Any] = {
        "instanceId": snapshot.instance_id,
        "executionId": snapshot.execution_id,
        "name": snapshot.name,
        "version": snapshot.version,
        "runtimeStatus": snapshot.status,
        "input": snapshot.input if show_input else None,
        "output": snapshot.output,
        "customStatus": snapshot.custom_status,
        "createdTime": iso(snapshot.created_at),
        "lastUpdatedTime": iso(snapshot.updated_at),
        "completedTime": iso(snapshot.completed_at),
        "tags": snapshot.tags or {},
        "parentInstanceId": snapshot.parent_instance_id,
        "partition": snapshot.partition,
    }
    if snapshot.failure is not None:
        shape["failure"] = snapshot.failure
        if snapshot.output == NULL:
            shape["output"] = f"{snapshot.failure.type}: {snapshot.failure.message}"
    if snapshot.reason:
        shape["reason"] = snapshot.reason
        if snapshot.status in _ENDED_FROM_OUTSIDE and snapshot.output == NULL:
            shape["output"] = snapshot.reason
    return shape


def history_shape(encoded: Raw, *, show_output: bool) -> list[dict[str, Any]]:
    """Return the history as a list of objects, with inputs and results if wanted."""
    shapes = []
    for event in history_of(encoded):
        shape = {
            _camel(name): value
            for name in event.__dataclass_fields__
            if (value := getattr(event, name)) is not None
            and (show_output or name not in ("input", "result", "data"))
        }
        shape["eventType"] = shape.pop("kind")
        shapes.append(msgspec.to_builtins(shape))
    return shapes


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def explanation_shape(explanation: Explanation) -> dict[str, Any]:
    """Return why an instance does not move as an object."""
    status = explanation.status
    return {
        "instanceId": explanation.instance_id,
        "name": None if status is None else status.name,
        "runtimeStatus": None if status is None else status.status,
        "summary": explanation.summary,
        "awaited": [_awaited_shape(each) for each in explanation.awaited],
        "more": explanation.more,
    }


def _awaited_shape(awaited: Awaited) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "kind": awaited.kind,
        "text": awaited.text,
        "name": awaited.name,
        "instanceId": awaited.instance_id,
        "runtimeStatus": awaited.status,
        "taskId": awaited.task_id,
        "attempt": awaited.attempt,
        "since": None if awaited.since is None else iso(to_micros(awaited.since)),
        "due": None if awaited.due is None else iso(to_micros(awaited.due)),
        "reason": awaited.reason,
    }
    return {key: value for key, value in shape.items() if value not in {None, ""}}
