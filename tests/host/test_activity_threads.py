"""Activities in threads, in real time: nothing stops a thread but its own code."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from shardrt import ActivityContext, App, CallNext, ExecutionInfo
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core.effects import CancelActivity, RunActivity
from shardrt.core.history import NULL, Failure
from shardrt.host.activity_pool import ActivityPool
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import Raw

app = App()
go = threading.Event()


@app.activity
def stubborn(ctx: ActivityContext) -> int:
    go.wait()
    return ctx.task_id


@app.activity
def polite(ctx: ActivityContext) -> None:
    while not ctx.is_cancelled:
        go.wait(0.001)


@app.activity
def quick(ctx: ActivityContext) -> int:
    return ctx.task_id


class Partition:
    def __init__(self) -> None:
        self.outcomes: list[tuple[int, str]] = []

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        text = outcome.type if isinstance(outcome, Failure) else bytes(outcome).decode()
        self.outcomes.append((run.task_id, text))


def with_pool(
    threads: int, main: Callable[[ActivityPool, Partition], Awaitable[None]], app: App = app
) -> None:
    async def run() -> None:
        go.clear()
        settings = Settings(shard=ShardSettings(activity_threads_max=threads))
        pool = ActivityPool(app, settings, host_id="h", shard=0)
        try:
            await main(pool, Partition())
        finally:
            go.set()
            await pool.close()

    asyncio.run(run())


def an_attempt(task_id: int, name: str, timeout: int | None = None) -> RunActivity:
    return RunActivity("i", "x", task_id, 1, name, NULL, timeout)


def test_a_cancelled_thread_keeps_its_place_until_it_ends():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "stubborn"))
        await asyncio.sleep(0)
        pool.cancel(CancelActivity("i", "x", 1))
        pool.start(asker, an_attempt(2, "quick"))
        assert (pool.lingering, len(pool), pool.names()) == (1, 1, ["stubborn"])
        go.set()
        await eventually(lambda: asker.outcomes == [(2, "2")])
        assert pool.lingering == 0

    with_pool(1, main)


def test_a_thread_sees_that_it_is_cancelled():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "polite"))
        await asyncio.sleep(0)
        pool.cancel_all(asker)
        await eventually(lambda: pool.lingering == 0)
        assert asker.outcomes == []

    with_pool(1, main)


def test_a_thread_whose_time_is_over_is_reported_and_keeps_its_place():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "stubborn", timeout=1_000))
        pool.start(asker, an_attempt(2, "quick"))
        await eventually(lambda: asker.outcomes == [(1, "TimeoutError")])
        go.set()
        await eventually(lambda: asker.outcomes == [(1, "TimeoutError"), (2, "2")])

    with_pool(1, main)


def test_middleware_that_hangs_before_the_thread_ends_with_its_attempt():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "quick"))
        await asyncio.sleep(0)
        pool.start(asker, an_attempt(2, "quick"))
        pool.cancel(CancelActivity("i", "x", 1))
        await eventually(lambda: asker.outcomes == [(2, "2")])
        assert pool.lingering == 0

    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        assert isinstance(info.context, ActivityContext)
        if info.context.task_id == 1:
            await asyncio.Event().wait()
        return await call_next()

    with_pool(1, main, with_middleware(around))


def test_middleware_that_hangs_after_a_thread_that_nobody_waits_for_does_not_keep_its_place():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "stubborn"))
        await asyncio.sleep(0)
        pool.cancel(CancelActivity("i", "x", 1))
        assert pool.lingering == 1
        go.set()
        await eventually(lambda: pool.lingering == 0)

    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        await call_next()
        return await asyncio.Event().wait()

    with_pool(1, main, with_middleware(around))


def with_middleware(middleware: Any) -> App:
    app_within = App()
    app_within.include(app)
    app_within.execution_middleware(middleware)
    return app_within


def test_a_pool_does_not_wait_for_threads_when_it_closes():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "stubborn"))
        await asyncio.sleep(0)
        await pool.close()
        assert pool.lingering == 0

    with_pool(1, main)
