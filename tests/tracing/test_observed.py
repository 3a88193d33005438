"""Who looks on at a partition: what of it is told, and that it disturbs nobody."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from shardrt import App, OrchestrationContext, RetryPolicy
from shardrt.config import Settings
from shardrt.config.settings import TracingSettings
from shardrt.core.entries import Entry, instance_of
from shardrt.errors import ActivityFailed
from shardrt.host.observer import Observer
from shardrt.host.traced import HAPPENINGS_MAX
from shardrt.testing.client import HubClient
from shardrt.testing.environment import Environment
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import run_virtual
from shardrt.tracing.providing import make_tracer
from tests.host import test_quarantine as q
from tests.tracing.recording import ALL, Recording

if TYPE_CHECKING:
    import pytest

app = App()


@app.activity
async def fail() -> None:
    raise OSError("no")


@app.orchestrator
async def stubborn(ctx: OrchestrationContext, attempts: int) -> str:
    policy = RetryPolicy(max_attempts=attempts, first_interval=1.0, max_interval=1.0)
    with contextlib.suppress(ActivityFailed):
        await ctx.call_activity(fail, retry=policy)
    return "over"


def play(recording: Recording, attempts: int) -> None:
    async def main() -> None:
        provider = recording.provider
        async with Environment(app, settings=ALL, tracer_provider=provider) as env:
            before = env.hub.host_of(0)
            assert await (await env.client.start(stubborn, attempts)).result() == "over"
            assert env.hub.host_of(0) is before

    run_virtual(main())


def test_a_span_processor_that_raises_stops_nobody(caplog: pytest.LogCaptureFixture):
    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise OSError("no")

    recording = Recording()
    recording.provider.add_span_processor(Broken())
    play(recording, 1)
    assert any("a span processor has failed" in each for each in caplog.messages)


def test_of_a_call_only_the_last_attempts_are_told():
    recording = Recording()
    play(recording, HAPPENINGS_MAX)
    told = recording.one("orchestration.call").events
    assert len(told) == HAPPENINGS_MAX  # each attempt, and each retry but none after the last
    assert told[-1].attributes == {"attempt": HAPPENINGS_MAX}


def test_what_an_instance_hears_after_it_was_repaired_is_told():
    recording = Recording()

    async def main() -> None:
        async with Hub(q.app, partitions=2, shards=1, settings=q.settings()) as hub:
            hub.tracer = make_tracer(ALL.tracing, "1", recording.provider)
            await q.reopen(hub)  # what starts from now on traces
            client = HubClient(hub)
            await client.start("caller", "kid!0", "parent!1")
            await q.stored(hub)
            row = q.damage(hub, "parent!1")
            await q.reopen(hub)
            for data in ("a", "b"):
                await client.raise_event("kid!0", "go", data)
            assert await client.result("kid!0") == ["a", "b"]
            await q.stored(hub)
            q.repair(hub, row)
            await q.reopen(hub)
            assert await client.result("parent!1") == ["a", "b"]

    run_virtual(main())
    recording.assert_one_tree()
    assert "error.type" not in (recording.one("orchestration.call").attributes or {})


def test_only_what_happens_to_traced_instances_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    looked: set[str | None] = set()
    look = Observer.look

    def watched(observer: Observer, entry: Entry) -> None:
        looked.add(instance_of(entry))
        look(observer, entry)

    monkeypatch.setattr(Observer, "look", watched)
    recording = Recording()
    none = Settings(tracing=TracingSettings(sample_ratio=0.0))

    async def main() -> None:
        async with Environment(app, settings=none, tracer_provider=recording.provider) as env:
            with recording.tracer.start_as_current_span("outer"):
                traced = await env.client.start(stubborn, 3, instance_id="traced!0")
            beside = await env.client.start(stubborn, 3, instance_id="beside!0")
            assert await traced.result() == await beside.result() == "over"

    run_virtual(main())
    assert looked == {"traced!0"}
    assert recording.one("orchestration.complete").end_time is not None
