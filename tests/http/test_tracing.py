"""Requests over HTTP, and clients within a span: their spans, and the traces they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from shardrt import App, OrchestrationContext, Runtime
from shardrt.errors import InstanceNotFound
from tests.loops import in_loop
from tests.tracing.recording import Recording, id_of, parent_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ROOT = "/runtime/orchestrations"

app = App()


@app.activity
async def trace_id() -> int:
    return trace.get_current_span().get_span_context().trace_id & 0xFFFF_FFFF


@app.orchestrator
async def where(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(trace_id)


@app.orchestrator
async def patient(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


def runtime_with(recording: Recording, ratio: float) -> Runtime:
    settings = {"tracing.sample_ratio": ratio, "tracing.traces_per_s_max": 0}
    return Runtime(app, partitions=4, settings=settings, tracer_provider=recording.provider)


def http_of(runtime: Runtime) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(runtime.asgi())
    return httpx.AsyncClient(transport=transport, base_url="http://host")


def facts_of(span: ReadableSpan) -> dict[str, object]:
    return {
        key.removeprefix("durable.management."): value
        for key, value in (span.attributes or {}).items()
    }


@in_loop
async def test_each_request_is_a_span_and_what_it_starts_is_below_it() -> None:
    recording = Recording()
    runtime = runtime_with(recording, 1.0)
    async with runtime, http_of(runtime) as http:
        await http.post(f"{ROOT}/start/patient", json={"instanceId": "x"})
        await http.get(f"{ROOT}/x")
        await http.post(f"{ROOT}/x/raiseEvent/go", json={"eventData": "now"})
        await runtime.client.wait_for_end("x")
        await http.delete(f"{ROOT}/x")
        await http.post(f"{ROOT}/start/patient", json={"instanceId": "y"})
        await http.post(f"{ROOT}/y/terminate", json={"reason": "enough"})
        await http.post(f"{ROOT}/start/patient", json={"instanceId": "z"})
        await http.post(f"{ROOT}/z/cancel", json={"reason": "enough"})
        await runtime.client.wait_for_end("z")

    started, *_ = recording.named("Management.StartOrchestration")
    assert facts_of(started) == {"orchestrator": "patient", "response.instance_id": "x"}
    assert started.kind is SpanKind.SERVER
    begun = recording.one("orchestration.start", instance_id="x")
    assert parent_of(begun) == id_of(started)
    got = facts_of(recording.one("Management.GetStatus"))
    assert got["instance_id"] == "x"
    assert got["response.runtime_status"] in {"Pending", "Running"}
    raised = recording.one("Management.RaiseEvent")
    assert facts_of(raised) == {"instance_id": "x", "event_name": "go"}
    (link,) = recording.one("orchestration.event.receive").links
    assert link.context.span_id == id_of(raised)
    purged = facts_of(recording.one("Management.Purge"))
    assert purged == {"instance_id": "x", "response.deleted": 1}
    terminated = facts_of(recording.one("Management.Terminate"))
    assert terminated == {"instance_id": "y", "terminate.reason": "enough"}
    canceled = facts_of(recording.one("Management.Cancel"))
    assert canceled == {"instance_id": "z", "cancel.reason": "enough"}
    end = recording.one("orchestration.complete", instance_id="z")
    assert facts_of(end)["orchestration.status"] == "Canceled"


@in_loop
@pytest.mark.parametrize("api", [f"{ROOT}/start/", "/runtime/webhooks/durabletask/orchestrators/"])
async def test_a_request_belongs_to_the_trace_that_its_header_says(api: str) -> None:
    recording = Recording()
    runtime = runtime_with(recording, 0.0)
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    async with runtime, http_of(runtime) as http:
        assert (await http.post(f"{api}patient", json={}, headers=headers)).status_code == 202

    begun = recording.one("orchestration.start")
    managed = recording.one("Management.StartOrchestration")
    assert begun.context is not None
    assert f"{begun.context.trace_id:032x}" == TRACE
    assert begun.context.trace_state.to_header() == "vendor=1"
    assert parent_of(begun) == id_of(managed)
    assert f"{parent_of(managed):016x}" == SPAN


@in_loop
@pytest.mark.parametrize(
    ("header", "spans"),
    [
        (f"00-{TRACE}-{SPAN}-00", 0),
        ("nonsense", 2),
        (f"00-{'0' * 32}-{SPAN}-01", 2),
        (f"00-{TRACE}-{SPAN}-01x", 2),
    ],
)
async def test_a_header_that_is_none_is_ignored_and_one_that_says_no_is_not(
    header: str, spans: int
) -> None:
    recording = Recording()
    runtime = runtime_with(recording, 1.0)
    async with runtime, http_of(runtime) as http:
        response = await http.post(
            f"{ROOT}/start/patient", json={}, headers={"traceparent": header}
        )
        assert response.status_code == 202

    assert len(recording.spans) == spans


@in_loop
async def test_what_is_not_recorded_was_drawn_once_and_carries_no_context() -> None:
    recording = Recording()
    runtime = runtime_with(recording, 1.0)
    draws = 0

    def begin() -> str:
        nonlocal draws
        draws += 1
        return ""

    async with runtime, http_of(runtime) as http:
        assert runtime.tracer is not None
        runtime.tracer.begin = begin  # type: ignore[method-assign]
        await http.post(f"{ROOT}/start/where", json={"instanceId": "x"})
        assert draws == 1
        without = await (await runtime.client.start(where)).result()
        assert await runtime.client.handle("x").result() == without  # that of no trace

    assert recording.counts == {}


@in_loop
async def test_a_client_within_a_span_that_is_not_recorded_records_nothing() -> None:
    recording = Recording()
    runtime = runtime_with(recording, 1.0)
    async with runtime:
        unsampled = trace.NonRecordingSpan(trace.SpanContext(7, 8, is_remote=False))
        with trace.use_span(unsampled):
            handle = await runtime.client.start(where)
            assert await handle.result() == 7

    assert recording.counts == {}


@in_loop
async def test_a_client_within_a_span_makes_one_of_its_own() -> None:
    recording = Recording()
    runtime = runtime_with(recording, 0.0)
    async with runtime:
        with recording.tracer.start_as_current_span("mine"):
            handle = await runtime.client.start("patient")
            await runtime.client.raise_event(handle.instance_id, "go", "now")
            assert await handle.result() == "now"
        await runtime.client.get(handle.instance_id)

    recording.assert_one_tree()
    assert recording.counts == {
        "mine": 1,
        "Management.StartOrchestration": 1,
        "Management.RaiseEvent": 1,
        "orchestration.start": 1,
        "orchestration.event.receive": 1,
        "orchestration.complete": 1,
    }
    managed = recording.one("Management.StartOrchestration")
    assert managed.kind is SpanKind.CLIENT
    assert parent_of(recording.one("orchestration.start")) == id_of(managed)


@in_loop
async def test_executing_within_a_span_is_a_start_within_it() -> None:
    recording = Recording()
    runtime = runtime_with(recording, 0.0)
    async with runtime:
        with recording.tracer.start_as_current_span("mine"):
            await runtime.client.execute(where)

    recording.assert_one_tree()
    assert recording.counts == {
        "mine": 1,
        "Management.StartOrchestration": 1,
        "orchestration.start": 1,
        "orchestration.call": 1,
        "orchestration.complete": 1,
    }
    managed = recording.one("Management.StartOrchestration")
    assert parent_of(recording.one("orchestration.start")) == id_of(managed)


@in_loop
async def test_what_fails_is_named_by_the_type_of_its_error_and_its_message_is_not_told() -> None:
    recording = Recording()
    runtime = runtime_with(recording, 1.0)
    async with runtime, http_of(runtime) as http:
        assert (await http.get(f"{ROOT}/x")).status_code == 404
        body = {"reason": "a secret"}
        assert (await http.post(f"{ROOT}/secret/terminate", json=body)).status_code == 404
        with recording.tracer.start_as_current_span("mine"), pytest.raises(InstanceNotFound):
            await runtime.client.raise_event("secret", "go")

    assert recording.one("Management.GetStatus").status.status_code is StatusCode.UNSET
    for name in ("Management.Terminate", "Management.RaiseEvent"):
        failed = recording.one(name)
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.status.description == "InstanceNotFound"
        assert not failed.events
