"""Instances, their history, and URLs as Azure's HTTP API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from shardrt.client.views import history_of, to_datetime, to_micros
from shardrt.core.history import Status
from shardrt.http.shapes import instance_shape, iso

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from msgspec import Raw
    from starlette.requests import Request

    from shardrt.client.views import HistoryEvent
    from shardrt.core.requests import EntitySnapshot, Snapshot

ROOT = "/runtime/webhooks/durabletask"
_COMMON = ("taskHub", "connection", "code")


def to_second(micros: int) -> str:
    """Return a time as Azure writes it: ISO 8601 in UTC, cut to the second."""
    return to_datetime(micros).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_shape(snapshot: Snapshot, *, show_input: bool) -> dict[str, Any]:
    """Return an instance as an object; the output of one that did not complete is text."""
    return {
        "name": snapshot.name,
        "instanceId": snapshot.instance_id,
        "runtimeStatus": snapshot.status,
        "input": snapshot.input if show_input else None,
        "customStatus": snapshot.custom_status,
        "output": instance_shape(snapshot)["output"],
        "createdTime": to_second(snapshot.created_at),
        "lastUpdatedTime": to_second(snapshot.updated_at),
    }


def entity_shape(entity: EntitySnapshot, *, fetch_state: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "entityId": {"name": entity.name, "key": entity.key},
        "lastOperationTime": iso(entity.updated_at),
    }
    if fetch_state:
        shape["state"] = entity.state
    return shape


def management_urls(request: Request, instance_id: str) -> dict[str, str]:
    """Return where an instance is looked at and steered, under the keys of this request."""
    base = str(request.base_url).rstrip("/")
    one = f"{base}{ROOT}/instances/{quote(instance_id, safe='')}"
    kept = {name: request.query_params[name] for name in _COMMON if name in request.query_params}
    query = f"?{urlencode(kept)}" if kept else ""
    reason = f"?reason={{text}}{query.replace('?', '&', 1)}"
    return {
        "id": instance_id,
        "statusQueryGetUri": one + query,
        "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}{query}",
        "terminatePostUri": f"{one}/terminate{reason}",
        "purgeHistoryDeleteUri": one + query,
        "restartPostUri": f"{one}/restart{query}",
        "suspendPostUri": f"{one}/suspend{reason}",
        "resumePostUri": f"{one}/resume{reason}",
    }


# -- history ------------------------------------------------------------------------------------

_OUTCOMES = {
    "TaskCompleted",
    "TaskFailed",
    "SubOrchestrationInstanceCompleted",
    "SubOrchestrationInstanceFailed",
    "EntityOperationCompleted",
    "EntityOperationFailed",
}
_MERGED = {"TaskScheduled", "SubOrchestrationInstanceCreated", "EntityOperationCalled"}
"""Shown with their outcome."""
_OURS = {
    "OrchestratorStarted",
    "TaskCanceled",
    "TimerCanceled",
    "PatchMarked",
    "EntityUnlockSent",
}
"""What Azure's API leaves out, or has no word for."""


def history_shape(encoded: Raw, *, show_input: bool, show_output: bool) -> Iterator[dict[str, Any]]:
    """Yield the events of an execution as Azure's API projects them.

    What was scheduled is told with its outcome; ids that connect events are left out.
    """
    asked: dict[int | None, HistoryEvent] = {}
    for event in history_of(encoded):
        if event.kind in _MERGED or event.kind == "TimerCreated":
            asked[event.task_id] = event
        if event.kind in _MERGED or event.kind in _OURS:
            continue
        shape: dict[str, Any] = {"EventType": event.kind, "Timestamp": _time(event.timestamp)}
        shape |= _details(event, show_input=show_input)
        if event.kind in _OUTCOMES or event.kind == "TimerFired":
            shape |= _origin(event, asked.get(event.task_id), show_input=show_input)
        if show_output and event.kind in _OUTCOMES | {"ExecutionCompleted"}:
            shape["Result"] = event.result
        yield shape


def _origin(event: HistoryEvent, asked: HistoryEvent | None, *, show_input: bool) -> dict[str, Any]:
    if asked is None:
        return {}
    if event.kind == "TimerFired":
        return {} if asked.fire_at is None else {"FireAt": _time(asked.fire_at)}
    shape: dict[str, Any] = {"ScheduledTime": _time(asked.timestamp), "FunctionName": asked.name}
    if show_input:
        shape["Input"] = asked.input
    return shape


def _details(event: HistoryEvent, *, show_input: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if event.failure is not None:
        shape["Reason"] = f"{event.failure.type}: {event.failure.message}"
        shape["Details"] = event.failure.details
    if event.kind == "ExecutionStarted":
        shape["FunctionName"] = event.name
    elif event.name is not None:
        shape["Name"] = event.name
    if event.kind == "ExecutionCompleted":
        shape["OrchestrationStatus"] = Status(event.status or Status.COMPLETED)
    if event.kind == "TimerCreated" and event.fire_at is not None:
        shape["FireAt"] = _time(event.fire_at)
    if event.reason:
        shape["Reason"] = event.reason
    if event.instance_id is not None:
        shape["InstanceId"] = event.instance_id
    if show_input and event.kind in {"ExecutionStarted", "ContinueAsNew"}:
        shape["Input"] = event.input
    if show_input and event.kind in {"EventRaised", "EventSent"}:
        shape["Input"] = event.data
    return shape


def _time(when: datetime) -> str | None:
    return iso(to_micros(when))
