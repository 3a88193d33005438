"""What is recorded of instances: once, under one roof, whatever happens to their hosts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace

from shardrt import App, CallNext, OrchestrationContext, RetryPolicy, SchedulingInfo
from shardrt.config import Settings
from shardrt.config.settings import TracingSettings
from shardrt.testing.environment import Environment
from shardrt.testing.faults import Fault
from shardrt.testing.virtual import pass_time, run_virtual
from tests.tracing.recording import ALL, Recording, id_of, parent_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

app = App()
recording = Recording()
"""That of the test."""
attempts: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global recording  # noqa: PLW0603 - activities record, too
    recording = Recording()
    attempts.clear()


@app.activity
async def work(number: int) -> int:
    with recording.tracer.start_as_current_span("user's own"):
        return number + 1


@app.activity
def blocking(number: int) -> int:
    with recording.tracer.start_as_current_span("user's own"):
        return number + 1


@app.activity
async def flaky() -> str:
    attempts.append(1)
    if len(attempts) < 3:
        raise OSError("not yet")
    return "done"


@app.activity
async def slow() -> None:
    await pass_time(100)


@app.orchestrator
async def several(ctx: OrchestrationContext, count: int) -> int:
    number = 0
    for _ in range(count):
        number = await ctx.call_activity(work, number)
        await ctx.create_timer(timedelta(seconds=10))
    return number


@app.orchestrator
async def in_thread(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(blocking, 1)


@app.orchestrator
async def retried(ctx: OrchestrationContext) -> str:
    policy = RetryPolicy(max_attempts=5, first_interval=2.0, jitter=0.0)
    return await ctx.call_activity(flaky, retry=policy)


@app.orchestrator
async def family(ctx: OrchestrationContext) -> list[int]:
    children = (ctx.call_sub_orchestrator(several, each) for each in (1, 2))
    return list(await asyncio.gather(*children))


@app.orchestrator
async def failing(ctx: OrchestrationContext) -> None:
    raise ValueError("a secret")


@app.orchestrator
async def waiting(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


@app.orchestrator
async def sender(ctx: OrchestrationContext, to: str) -> None:
    ctx.send_event(to, "go", "now")


@app.orchestrator
async def busy(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(slow)


@app.orchestrator
async def impatient(ctx: OrchestrationContext) -> str:
    try:
        async with asyncio.timeout(5):
            await ctx.call_activity(slow)
    except TimeoutError:
        return "too slow"
    return "fine"


@app.orchestrator
async def again(ctx: OrchestrationContext, left: int) -> str:
    await ctx.call_activity(work, left)
    if left:
        ctx.continue_as_new(left - 1)
    return "over"


def play(main: Callable[[Environment], Awaitable[None]], settings: Settings = ALL) -> None:
    async def run() -> None:
        provider = recording.provider
        async with Environment(app, settings=settings, tracer_provider=provider) as env:
            await main(env)

    run_virtual(run())


async def result(env: Environment, name: str, *args: object, instance_id: str = "i") -> object:
    handle = await env.client.start(name, *args, instance_id=instance_id)
    return await handle.result()


def test_an_instance_starts_once_and_ends_once_and_has_a_span_for_each_call():
    async def main(env: Environment) -> None:
        assert await result(env, "several", 3) == 3

    play(main)

    assert recording.counts == {
        "orchestration.start": 1,
        "orchestration.call": 3,
        "user's own": 3,
        "orchestration.complete": 1,
    }
    recording.assert_one_tree()
    start = recording.one("orchestration.start", function_name="several")
    assert parent_of(start) is None
    assert start.attributes == {
        "function.name": "several",
        "instance.id": "i",
        "host.id": "host",
        "shard.id": 0,
    }
    for call in recording.named("orchestration.call"):
        assert parent_of(call) == id_of(start)
    end = recording.one("orchestration.complete", instance_id="i")
    assert end.attributes == {
        **start.attributes,
        "orchestration.status": "Completed",
        "orchestration.timer_was_set": True,
        "orchestration.state_deleted": False,
    }
    assert end.start_time is not None
    assert end.end_time is not None
    assert 30.0 < (end.end_time - end.start_time) / 1e9 < 31.0


def test_a_crash_in_the_middle_repeats_nothing():
    async def main(env: Environment) -> None:
        handle = await env.client.start("family", instance_id="i")
        for _ in range(2):
            await env.advance(timedelta(seconds=5))
            await env.crash()
        assert await handle.result() == [1, 2]

    play(main)

    recording.assert_one_tree()
    assert recording.counts == {
        "orchestration.start": 3,
        "orchestration.call": 2 + 3,
        "user's own": 3,
        "orchestration.complete": 3,
    }


def test_an_instance_that_leaves_memory_and_comes_back_is_the_same():
    async def main(env: Environment) -> None:
        env.hub.evicts = True
        for member in env.hub.members:
            member.shard.checkpointer.resident_bytes_max = 0
        handle = await env.client.start("several", 3, instance_id="i")
        for _ in range(35):  # in steps, so that there is time for checkpoints
            await env.advance(timedelta(seconds=1))
        assert await handle.result() == 3
        assert sum(member.shard.turns.replays for member in env.hub.members) > 0

    play(main)

    recording.assert_one_tree()
    assert recording.counts == {
        "orchestration.start": 1,
        "orchestration.call": 3,
        "user's own": 3,
        "orchestration.complete": 1,
    }
    assert recording.one("orchestration.complete").attributes["orchestration.timer_was_set"]  # type: ignore[index]


def test_a_call_that_a_crash_interrupts_lasts_from_the_first_attempt_to_the_outcome():
    async def main(env: Environment) -> None:
        handle = await env.client.start("busy", instance_id="i")
        await env.advance(timedelta(seconds=50))
        await env.crash()
        await handle.result()

    play(main)

    call = recording.one("orchestration.call")
    assert call.start_time is not None
    assert call.end_time is not None
    assert 150.0 < (call.end_time - call.start_time) / 1e9 < 151.0


def test_attempts_are_events_of_the_call():
    async def main(env: Environment) -> None:
        assert await result(env, "retried") == "done"

    play(main)

    call = recording.one("orchestration.call")
    assert call.attributes is not None
    assert call.attributes["attempt"] == 3
    assert [(event.name, dict(event.attributes or {})) for event in call.events] == [
        ("attempt", {"attempt": 1}),
        ("retry", {"error.type": "OSError", "delay_ms": 2000}),
        ("attempt", {"attempt": 2}),
        ("retry", {"error.type": "OSError", "delay_ms": 4000}),
        ("attempt", {"attempt": 3}),
    ]
    assert call.status.is_unset


def test_children_are_below_the_call_that_started_them():
    async def main(env: Environment) -> None:
        await result(env, "family")

    play(main)

    recording.assert_one_tree()
    calls = {
        call.attributes["child.instance.id"]: call
        for call in recording.named("orchestration.call")
        if call.attributes and "child.instance.id" in call.attributes
    }
    starts = [each for each in recording.named("orchestration.start") if each.parent is not None]
    assert len(starts) == len(calls) == 2
    for start in starts:
        assert start.attributes is not None
        assert parent_of(start) == id_of(calls[start.attributes["instance.id"]])
        assert start.attributes["parent.instance.id"] == "i"


@pytest.mark.parametrize("name", ["several", "in_thread"])
def test_what_an_activity_records_is_below_its_call(name: str):
    async def main(env: Environment) -> None:
        await result(env, name, *([1] if name == "several" else []))

    play(main)

    assert parent_of(recording.one("user's own")) == id_of(recording.one("orchestration.call"))


def test_what_starts_within_a_span_is_below_it():
    async def main(env: Environment) -> None:
        with recording.tracer.start_as_current_span("outer"):
            await result(env, "several", 1)

    play(main, Settings(tracing=TracingSettings(sample_ratio=0.0)))

    recording.assert_one_tree()
    assert parent_of(recording.one("orchestration.start")) == id_of(recording.one("outer"))


def test_what_starts_in_a_trace_that_is_not_recorded_is_not_recorded():
    unsampled = trace.SpanContext(7, 8, is_remote=False)

    async def main(env: Environment) -> None:
        with trace.use_span(trace.NonRecordingSpan(unsampled)):
            await result(env, "family")

    play(main)

    assert recording.counts == {}


def test_a_trace_is_recorded_as_a_whole_or_not_at_all():
    async def main(env: Environment) -> None:
        await asyncio.gather(*(result(env, "family", instance_id=str(i)) for i in range(40)))

    play(main, Settings(tracing=TracingSettings(sample_ratio=0.5, traces_per_s_max=0)))

    starts = recording.named("orchestration.start")
    recorded = len(starts) // 3
    assert 5 < recorded < 35  # misses once in 10^7 runs
    assert recording.counts == {
        "orchestration.start": 3 * recorded,
        "orchestration.call": 5 * recorded,
        "user's own": 3 * recorded,
        "orchestration.complete": 3 * recorded,
    }


def test_a_failure_is_named_but_not_told():
    async def main(env: Environment) -> None:
        handle = await env.client.start("failing")
        await env.client.wait_for_end(handle.instance_id)

    play(main)

    end = recording.one("orchestration.complete")
    assert end.attributes is not None
    assert end.attributes["error.type"] == end.status.description == "ValueError"
    assert not end.status.is_ok
    assert "secret" not in end.to_json()


def test_an_event_is_in_the_trace_of_its_receiver_and_linked_to_its_sender():
    async def main(env: Environment) -> None:
        handle = await env.client.start("waiting", instance_id="i")
        await env.settle()
        await result(env, "sender", "i", instance_id="s")
        assert await handle.result() == "now"

    play(main)

    event = recording.one("orchestration.event.receive")
    start = recording.one("orchestration.start", instance_id="i")
    source = recording.one("orchestration.start", instance_id="s")
    assert parent_of(event) == id_of(start)
    assert [link.context.span_id for link in event.links] == [id_of(source)]
    assert event.attributes is not None
    assert event.attributes["event.name"] == "go"
    assert event.attributes["payload.type"] == "string"
    assert event.attributes["event.queue_depth"] == 1


def test_an_event_from_within_a_span_is_linked_to_it():
    async def main(env: Environment) -> None:
        handle = await env.client.start("waiting", instance_id="i")
        await env.settle()
        with recording.tracer.start_as_current_span("outer"):
            await env.client.raise_event("i", "go", "now")
        await handle.result()

    play(main)

    event = recording.one("orchestration.event.receive")
    (link,) = event.links
    assert link.context.trace_id == recording.one("outer").get_span_context().trace_id  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["busy", "impatient"])
def test_a_call_that_nobody_waits_for_any_more_ends(name: str):
    async def main(env: Environment) -> None:
        handle = await env.client.start(name, instance_id="i")
        await env.advance(timedelta(seconds=6))
        if name == "busy":
            await env.client.terminate("i")
        await env.client.wait_for_end(handle.instance_id)

    play(main)

    call = recording.one("orchestration.call")
    assert call.attributes is not None
    assert call.attributes["error.type"] == "canceled"
    recording.assert_one_tree()


def test_an_instance_that_continues_as_new_goes_on_in_its_trace():
    async def main(env: Environment) -> None:
        assert await result(env, "again", 2) == "over"

    play(main)

    recording.assert_one_tree()
    assert recording.counts == {
        "orchestration.start": 1,
        "orchestration.call": 3,
        "user's own": 3,
        "orchestration.complete": 1,
    }


def test_an_instance_that_is_started_anew_begins_a_trace_of_its_own():
    async def main(env: Environment) -> None:
        await result(env, "several", 1)
        await (await env.client.restart("i")).result()

    play(main)

    first, second = recording.named("orchestration.start")
    assert first.context is not None
    assert second.context is not None
    assert first.context.trace_id != second.context.trace_id


def test_whether_a_start_that_middleware_looks_at_is_traced_is_drawn_once():
    draws = 0
    vetted = App()
    vetted.include(app)

    @vetted.scheduling_middleware
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        await call_next()

    def begin() -> str:
        nonlocal draws
        draws += 1
        return ""  # not to be recorded

    async def main() -> None:
        async with Environment(vetted, tracer_provider=recording.provider) as env:
            assert env.hub.tracer is not None
            env.hub.tracer.begin = begin  # type: ignore[method-assign]
            await result(env, "several", 1)

    run_virtual(main())
    assert draws == 1


def test_commits_are_spans_if_that_is_asked_for():
    async def main(env: Environment) -> None:
        await result(env, "several", 2)

    play(
        main,
        Settings(
            tracing=TracingSettings(sample_ratio=1.0, traces_per_s_max=0, state_operations=True)
        ),
    )

    recording.assert_one_tree()
    saves = recording.named("state.save")
    assert len(saves) >= 4  # start, two activities, two timers
    start = recording.one("orchestration.start")
    assert {parent_of(save) for save in saves} == {id_of(start)}


def test_what_was_not_committed_is_not_recorded():
    class CrashOnce:
        """The host dies before its next record is in the store."""

        crashed = False

        def fault(self, number: int, name: str) -> Fault | None:
            if name != "append" or self.crashed:
                return None
            self.crashed = True
            assert recording.counts == {}
            return Fault.CRASH_BEFORE

    async def main(env: Environment) -> None:
        env.hub.calls.plan = plan
        await result(env, "several", 1)

    plan = CrashOnce()
    play(main)

    assert plan.crashed
    recording.assert_one_tree()
    assert recording.counts["orchestration.start"] == 1
