"""Activities that tell how far they are, and what becomes of those that fall silent."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy, Runtime
from shardrt.config import Settings
from shardrt.config.settings import LimitSettings
from shardrt.core.effects import RunActivity
from shardrt.core.history import NULL, Failure
from shardrt.host.activity_pool import ActivityPool
from shardrt.host.imports import reference_to
from shardrt.host.worker_pool import AppSource
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

app = App()
never = threading.Event()

RETRY = RetryPolicy(max_attempts=3, first_interval=1.0, jitter=0.0)


@app.activity
async def lively(ctx: ActivityContext) -> str:
    for number in range(10):
        ctx.heartbeat(number)
        await pass_time(0.9)
    return "done"


@app.activity
async def silent(ctx: ActivityContext) -> None:
    ctx.heartbeat({"done": 3})
    await pass_time(100)


@app.activity
async def deaf(ctx: ActivityContext) -> None:
    """Does not even listen when it is cancelled."""
    while True:
        try:
            await pass_time(100)
        except asyncio.CancelledError:
            await pass_time(5)
            return


@app.activity
async def chatty(ctx: ActivityContext) -> None:
    ctx.heartbeat("x" * 2000)


@app.activity
def thread_silent(ctx: ActivityContext) -> None:
    ctx.heartbeat("thread")
    while not ctx.is_cancelled:
        never.wait(0.001)


@app.activity(executor="process")
def process_silent(ctx: ActivityContext) -> None:
    for number in range(100):
        ctx.heartbeat(number)
    never.wait()


@app.activity(executor="process")
def process_fails(ctx: ActivityContext) -> None:
    for number in range(ctx.heartbeat_details, 100):
        ctx.heartbeat(number)
    raise ValueError("no")


class Partition:
    def __init__(self) -> None:
        self.outcomes: list[Raw | Failure] = []

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        self.outcomes.append(outcome)


def outcome_of(
    name: str, limit: int | None, heartbeat: Raw = NULL, *, real: bool = False
) -> Raw | Failure:
    """Run one attempt, in virtual time unless it needs a thread or process."""
    asker = Partition()

    async def run() -> None:
        settings = Settings(limits=LimitSettings(payload_bytes_max=1024))
        source = AppSource(reference_to(app) or "", sys.path)
        pool = ActivityPool(app, settings, host_id="h", shard=0, source=source)
        pool.start(asker, RunActivity("i", "x", 0, 1, name, NULL, None, limit, heartbeat))
        wait: Callable[[], Awaitable[None]] = (
            (lambda: eventually(lambda: asker.outcomes)) if real else (lambda: pass_time(20))
        )
        await wait()
        await pool.close()

    if real:
        asyncio.run(run())
    else:
        run_virtual(run())
    (outcome,) = asker.outcomes
    return outcome


def silence(limit: str, heartbeat: bytes) -> Failure:
    message = f"no heartbeat for {limit} s"
    return Failure(type="HeartbeatTimeout", message=message, heartbeat=Raw(heartbeat))


def test_who_is_heard_of_often_enough_may_take_long():
    assert outcome_of("lively", 1_000_000) == Raw(b'"done"')


def test_who_is_silent_for_too_long_has_failed():
    assert outcome_of("silent", 1_000_000) == silence("1", b'{"done":3}')


def test_nobody_waits_for_code_that_ignores_its_cancellation():
    assert outcome_of("deaf", 1_000_000) == silence("1", b"null")


def test_without_a_limit_silence_is_no_failure():
    assert outcome_of("lively", None) == Raw(b'"done"')


def test_details_are_bounded_like_every_payload():
    outcome = outcome_of("chatty", None)
    assert isinstance(outcome, Failure)
    assert outcome.type == "PayloadTooLarge"


def test_a_thread_that_is_silent_has_failed():
    assert outcome_of("thread_silent", 50_000, real=True) == silence("0.05", b'"thread"')


@pytest.mark.proc
def test_a_process_that_is_silent_has_failed():
    outcome = outcome_of("process_silent", 300_000, real=True)
    assert isinstance(outcome, Failure)
    assert outcome.message == "no heartbeat for 0.3 s"
    assert 0 <= int(bytes(outcome.heartbeat)) < 100


@pytest.mark.proc
def test_the_last_details_of_a_process_come_with_its_failure():
    outcome = outcome_of("process_fails", None, Raw(b"90"), real=True)
    assert isinstance(outcome, Failure)
    assert (outcome.type, outcome.heartbeat) == ("ValueError", Raw(b"99"))


# -- from one attempt to the next ------------------------------------------------------------------


@app.activity(retry=RETRY, heartbeat_timeout=2.0)
async def copy(ctx: ActivityContext) -> list[int]:
    """Get three steps further with each attempt, and then hang."""
    done = ctx.heartbeat_details or 0
    for number in range(done + 1, 8):
        ctx.heartbeat(number)
        if number == done + 3:
            await pass_time(1000)
    return [ctx.attempt, done]


@app.orchestrator
async def copying(ctx: OrchestrationContext) -> list[int]:
    return await ctx.call_activity(copy)


@app.activity
async def sluggish() -> None:
    await pass_time(1000)


@app.orchestrator
async def impatient(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(sluggish, retry=RETRY, timeout=3, total_timeout=6)
    except Exception as error:  # noqa: BLE001
        return str(error)
    return ""


@pytest.mark.parametrize("crash_at_s", [None, 1.0, 2.5])
def test_the_next_attempt_goes_on_where_the_last_one_stopped(crash_at_s: float | None):
    async def main() -> None:
        async with Hub(app, partitions=1) as hub:
            client = HubClient(hub)
            instance_id = await client.start("copying")
            if crash_at_s is not None:
                await pass_time(crash_at_s)
                hub.crash(hub.owners[0])
            assert await client.result(instance_id) == [3, 6]
            assert hub.broken == []

    run_virtual(main())


@pytest.mark.parametrize("crash_at_s", [None, 1.0, 3.5, 5.0])
def test_all_attempts_together_end_in_time(crash_at_s: float | None):
    async def main() -> None:
        async with Hub(app, partitions=1) as hub:
            client = HubClient(hub)
            began_s = asyncio.get_running_loop().time()
            instance_id = await client.start("impatient")
            if crash_at_s is not None:
                await pass_time(crash_at_s)
                hub.crash(hub.owners[0])
            result = await client.result(instance_id)
            assert "all attempts together did not end within 6 s" in result
            assert 6 <= asyncio.get_running_loop().time() - began_s < 7
            assert hub.broken == []

    run_virtual(main())


@app.activity(retry=RetryPolicy(max_attempts=2, first_interval=0.2))
async def second_time(ctx: ActivityContext) -> object:
    ctx.heartbeat({"attempt": ctx.attempt})
    if ctx.attempt == 1:
        raise OSError
    return ctx.heartbeat_details


@app.orchestrator
async def twice(ctx: OrchestrationContext) -> object:
    return await ctx.call_activity(second_time)


def test_what_an_attempt_told_outlives_its_host(tmp_path: Path):
    store = f"sqlite:///{tmp_path}/hub.db"

    async def first() -> None:
        async with Runtime(app, store=store, partitions=1) as runtime:
            handle = await runtime.client.start(twice, instance_id="a")

            async def has_failed_once() -> bool:
                core = runtime.host.shard.hosts[0].core
                return any(p.attempt == 2 for p in core.instances["a"].pending.values())

            await eventually(has_failed_once)
            assert handle.instance_id == "a"

    async def second() -> object:
        async with Runtime(app, store=store, partitions=1) as runtime:
            return await runtime.client.handle("a").result(timeout=10)

    asyncio.run(first())
    assert asyncio.run(second()) == {"attempt": 1}
