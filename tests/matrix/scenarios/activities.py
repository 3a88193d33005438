"""Activities: attempts, limits of time, heartbeats, cancellation, threads, processes."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy
from shardrt.errors import ActivityFailed
from tests.matrix.stage import GATE_S, Stage, note, passed, scenario
from tests.waiting import wait_until

app = App()
AGAIN = RetryPolicy(max_attempts=3, first_interval=1.0, backoff=1.0, jitter=0)


@app.orchestrator
async def calls(ctx: OrchestrationContext, order: tuple[str, str]) -> Any:
    """Call an activity with a directory; return its result, or how it failed."""
    name, directory = order
    try:
        return await ctx.call_activity(name, directory)
    except ActivityFailed as failed:
        return f"{failed.error_type}: {failed.message}"


async def call(stage: Stage, activity: Any) -> None:
    order = (activity.__name__, str(stage.directory))
    await stage.client.start(calls, order, instance_id=stage.id())


@app.activity(retry=AGAIN)
async def fails_twice(ctx: ActivityContext, directory: str) -> int:
    note(f"{directory}/notes", ctx.attempt)
    note(f"{directory}/keys", ctx.idempotency_key)
    if ctx.attempt < 3:
        raise ConnectionError("not yet")
    return ctx.attempt


@scenario()
async def failed_attempts_are_tried_again(stage: Stage) -> None:
    await call(stage, fails_twice)
    await stage.noted("1")
    await stage.middle()
    assert await stage.result() == 3
    assert sorted(set(stage.notes())) == ["1", "2", "3"]
    assert len(set(stage.notes("keys"))) == 1


@app.activity(retry=RetryPolicy(max_attempts=2, first_interval=1.0, jitter=0))
async def never_works(ctx: ActivityContext, directory: str) -> None:
    note(f"{directory}/notes", ctx.attempt)
    raise ConnectionError(f"attempt {ctx.attempt}")


@scenario()
async def the_last_failure_is_told(stage: Stage) -> None:
    await call(stage, never_works)
    await stage.noted("1")
    await stage.middle()
    assert await stage.result() == "ConnectionError: attempt 2"
    assert set(stage.notes()) == {"1", "2"}


@app.activity(retry=AGAIN, timeout=0.3)
async def hangs_once(ctx: ActivityContext, directory: str) -> int:
    note(f"{directory}/notes", ctx.attempt)
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return ctx.attempt


@scenario()
async def attempts_time_out(stage: Stage) -> None:
    await call(stage, hangs_once)
    await stage.noted("1")
    await stage.middle()
    assert await stage.result() == 2


@app.activity(retry=AGAIN, total_timeout=3)
async def hangs(ctx: ActivityContext, directory: str) -> None:
    note(f"{directory}/notes", ctx.attempt)
    await asyncio.Event().wait()


@scenario()
async def all_attempts_together_time_out(stage: Stage) -> None:
    await call(stage, hangs)
    await stage.noted("1")
    await stage.middle()
    told = await stage.result()
    assert told == "TimeoutError: all attempts together did not end within 3 s"


@app.activity(retry=AGAIN)
async def counts_on(ctx: ActivityContext, directory: str) -> list[Any]:
    if ctx.attempt == 1:
        ctx.heartbeat({"done": 7})
        note(f"{directory}/notes", "told")
        raise ConnectionError("lost")
    return [ctx.attempt, ctx.heartbeat_details]


@scenario()
async def heartbeats_reach_the_next_attempt(stage: Stage) -> None:
    await call(stage, counts_on)

    async def is_failed() -> bool:
        awaited = (await stage.client.explain(stage.id())).awaited
        return any(each.due is not None for each in awaited) or not awaited

    await stage.noted("told")
    await stage.until(is_failed)
    await stage.middle()
    assert await stage.result() == [2, {"done": 7}]


@app.activity(heartbeat_timeout=0.4)
async def falls_silent(ctx: ActivityContext, directory: str) -> None:
    ctx.heartbeat()
    note(f"{directory}/notes", "silent")
    await asyncio.Event().wait()


@scenario()
async def silent_attempts_fail(stage: Stage) -> None:
    await call(stage, falls_silent)
    await stage.noted("silent")
    await stage.middle()
    assert (await stage.result()).startswith("HeartbeatTimeout: ")


@app.activity
async def notices(directory: str) -> None:
    note(f"{directory}/notes", "began")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(f"{directory}/notes", "cancelled")
        raise


@app.activity
def notices_in_thread(ctx: ActivityContext, directory: str) -> None:
    note(f"{directory}/notes", "began")
    wait_until(lambda: ctx.is_cancelled, within_s=GATE_S)
    note(f"{directory}/notes", "cancelled")


@app.orchestrator
async def stops(ctx: OrchestrationContext, order: tuple[str, str]) -> str:
    activity = ctx.call_activity(*order)
    await ctx.wait_for_event("stop")
    activity.cancel()
    return "stopped"


async def is_stopped(stage: Stage, activity: str) -> None:
    await stage.client.start(stops, (activity, str(stage.directory)), instance_id=stage.id())
    await stage.noted("began")
    before = len(stage.notes())
    await stage.middle()
    if stage.killed:
        await stage.until(lambda: stage.notes()[before:].count("began"))
    await stage.client.raise_event(stage.id(), "stop")
    assert await stage.result() == "stopped"
    await stage.until(lambda: stage.notes()[-1] == "cancelled")


@scenario()
async def cancelled_activities_are_told(stage: Stage) -> None:
    await is_stopped(stage, "notices")


@scenario(virtual=False)
async def cancelled_threads_are_told(stage: Stage) -> None:
    await is_stopped(stage, "notices_in_thread")


@app.activity
def in_thread(directory: str) -> bool:
    note(f"{directory}/notes", "began")
    wait_until(Path(f"{directory}/gate").exists, within_s=GATE_S)
    return threading.current_thread() is threading.main_thread()


@scenario(virtual=False)
async def plain_functions_run_in_threads(stage: Stage) -> None:
    await call(stage, in_thread)
    await stage.noted("began")
    await stage.middle()
    stage.open_gate()
    assert await stage.result() is False


@app.activity
async def own_process() -> int:
    return os.getpid()


@app.activity(executor="process")
def other_process(directory: str) -> int:
    note(f"{directory}/notes", "began")
    wait_until(Path(f"{directory}/gate").exists, within_s=GATE_S)
    return os.getpid()


@app.orchestrator
async def compares(ctx: OrchestrationContext, directory: str) -> bool:
    return await ctx.call_activity(other_process, directory) == await ctx.call_activity(own_process)


@scenario(virtual=False)
async def computing_has_processes_of_its_own(stage: Stage) -> None:
    await stage.client.start(compares, str(stage.directory), instance_id=stage.id())
    await stage.noted("began")
    await stage.middle()
    stage.open_gate()
    assert await stage.result() is False


@app.activity(speculative=True)
async def guesses(directory: str) -> str:
    await passed(f"{directory}/gate")
    return "guessed"


@scenario()
async def speculative_activities_end_once(stage: Stage) -> None:
    await call(stage, guesses)
    await stage.middle()
    stage.open_gate()
    assert await stage.result() == "guessed"
    history = await stage.client.history(stage.id())
    assert [each.speculative for each in history if each.kind == "TaskScheduled"] == [True]
    assert [each.kind for each in history].count("TaskCompleted") == 1
