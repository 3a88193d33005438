"""Spans of what is asked about instances from outside: start, look, raise, terminate, purge.

Whoever answers such a request over HTTP, or makes it as a client within a span, has one of these
around it. What it starts is below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace
from opentelemetry.trace import SpanKind, Status, StatusCode, get_tracer

from shardrt.core import requests as r
from shardrt.tracing.joining import text_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

NAMES: dict[type, str] = {
    r.Start: "Management.StartOrchestration",
    r.Get: "Management.GetStatus",
    r.Raise: "Management.RaiseEvent",
    r.Terminate: "Management.Terminate",
    r.Cancel: "Management.Cancel",
    r.Purge: "Management.Purge",
}
_PREFIX = "durable.management."


class Caller(Protocol):
    """Answers requests."""

    async def call(self, instance_id: str, request: r.Request) -> r.Result | None: ...


async def call_within_span(
    caller: Caller, instance_id: str, request: r.Request, tracer: Tracer | None = None
) -> r.Result | None:
    """Make a request as a client, within a span if it is one that has one.

    Args:
        caller: who answers it.
        instance_id: what it is about.
        request: what is asked.
        tracer: OpenTelemetry's; default: of the program's provider.
    """
    tracer = tracer or get_tracer("shardrt")
    return await _call(caller, instance_id, request, tracer, SpanKind.CLIENT)


async def serve_within_span(
    caller: Caller, instance_id: str, request: r.Request, tracer: Tracer
) -> r.Result | None:
    """Do the same for somebody else's request."""
    return await _call(caller, instance_id, request, tracer, SpanKind.SERVER)


async def _call(
    caller: Caller, instance_id: str, request: r.Request, tracer: Tracer, kind: SpanKind
) -> r.Result | None:
    name = NAMES.get(type(request))
    if name is None:
        return await caller.call(instance_id, request)
    with tracer.start_as_current_span(
        name, kind=kind, record_exception=False, set_status_on_exception=False
    ) as span:
        if span.is_recording():
            span.set_attributes(_asked(instance_id, request))
        if isinstance(request, (r.Start, r.Raise)):
            request = replace(request, trace=text_of(span.get_span_context()))
        try:
            result = await caller.call(instance_id, request)
        except Exception as error:
            # Its message may hold what users have written.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        if span.is_recording():
            _tell(span, result)
        return result


def _asked(instance_id: str, request: r.Request) -> dict[str, str]:
    match request:
        case r.Start(name):
            return {_PREFIX + "orchestrator": name}
        case r.Raise(name):
            facts = {"event_name": name}
        case r.Terminate(reason):
            facts = {"terminate.reason": reason}
        case r.Cancel(reason):
            facts = {"cancel.reason": reason}
        case _:
            facts = {}
    facts["instance_id"] = instance_id
    return {_PREFIX + key: value for key, value in facts.items()}


def _tell(span: Span, result: r.Result | None) -> None:
    answered = _PREFIX + "response."
    match result:
        case r.Started(instance_id):
            span.set_attribute(answered + "instance_id", instance_id)
        case r.Snapshot():
            span.set_attribute(answered + "runtime_status", result.status.value)
        case r.Purged(count):
            span.set_attribute(answered + "deleted", count)
        case _:
            pass
