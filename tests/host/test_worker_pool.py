"""Activities in worker processes, which are real ones here."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from shardrt import ActivityContext, App
from shardrt.config import Settings
from shardrt.config.settings import LimitSettings, ShardSettings
from shardrt.core.effects import CancelActivity, RunActivity
from shardrt.core.history import NULL, Failure
from shardrt.host.activity_pool import ActivityPool
from shardrt.host.imports import reference_to
from shardrt.host.worker_pool import AppSource
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import Raw

pytestmark = pytest.mark.proc

app = App()


@app.activity(executor="process")
def who(ctx: ActivityContext) -> list[int | str]:
    return [os.getpid(), ctx.idempotency_key, ctx.attempt]


@app.activity(executor="process")
def exits() -> None:
    os._exit(7)


@app.activity(executor="process")
def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.activity(executor="process")
def raises() -> None:
    raise SystemExit("no")


@app.activity(executor="process")
def large() -> str:
    return "x" * 3000


@app.activity(executor="process")
def forever() -> None:
    threading.Event().wait()


class Partition:
    def __init__(self) -> None:
        self.outcomes: dict[int, str] = {}

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        if isinstance(outcome, Failure):
            self.outcomes[run.task_id] = f"{outcome.type}: {outcome.message}"
        else:
            self.outcomes[run.task_id] = bytes(outcome).decode()


def with_pool(
    main: Callable[[ActivityPool, Partition], Awaitable[None]],
    processes: int = 1,
    reference: str | None = None,
) -> None:
    async def run() -> None:
        settings = Settings(
            shard=ShardSettings(activity_processes_max=processes),
            limits=LimitSettings(payload_bytes_max=2048),
        )
        source = AppSource(reference or reference_to(app) or "", sys.path)
        pool = ActivityPool(app, settings, host_id="h", shard=0, source=source)
        try:
            await main(pool, Partition())
        finally:
            await pool.close()
        assert pool.workers.pids == []

    asyncio.run(run())


def an_attempt(task_id: int, name: str, timeout: int | None = None) -> RunActivity:
    return RunActivity("i", "x", task_id, 2, name, NULL, timeout)


def test_a_worker_serves_one_attempt_after_another():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        for task_id in (1, 2):
            pool.start(asker, an_attempt(task_id, "who"))
        await eventually(lambda: len(asker.outcomes) == 2)
        (pid,) = pool.workers.pids
        assert asker.outcomes == {1: f'[{pid},"i:x:1",2]', 2: f'[{pid},"i:x:2",2]'}
        assert pid != os.getpid()

    with_pool(main)


@pytest.mark.parametrize(
    ("name", "how"), [("exits", "exited with code 7"), ("is_killed", "was killed by SIGKILL")]
)
def test_a_worker_that_dies_takes_only_its_attempt_with_it(name: str, how: str):
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "who"))
        await eventually(lambda: 1 in asker.outcomes)
        (pid,) = pool.workers.pids
        pool.start(asker, an_attempt(2, name))
        pool.start(asker, an_attempt(3, "who"))
        await eventually(lambda: len(asker.outcomes) == 3)
        failure = f"WorkerDied: worker process {pid} {how} while it ran activity '{name}'"
        assert asker.outcomes[2] == failure
        assert asker.outcomes[3] == f'[{pool.workers.pids[0]},"i:x:3",2]'

    with_pool(main)


def test_what_an_activity_raises_is_its_outcome():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "raises"))
        pool.start(asker, an_attempt(2, "large"))
        await eventually(lambda: len(asker.outcomes) == 2)
        assert asker.outcomes[1] == "SystemExit: no"
        assert asker.outcomes[2].startswith("PayloadTooLarge: result of activity 'large' has 3002")

    with_pool(main)


def test_a_cancelled_attempt_has_its_worker_killed():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "forever"))
        pool.start(asker, an_attempt(2, "who"))
        await eventually(lambda: pool.workers.pids)
        old = pool.workers.pids
        pool.cancel(CancelActivity("i", "x", 1))
        await eventually(lambda: 2 in asker.outcomes)
        assert list(asker.outcomes) == [2]
        assert pool.workers.pids != old

    with_pool(main)


def test_a_time_out_kills_the_worker():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "forever", timeout=50_000))
        await eventually(lambda: asker.outcomes)
        assert asker.outcomes == {1: "TimeoutError: did not end within 0.05 s"}
        await eventually(lambda: pool.workers.pids == [])

    with_pool(main)


def test_no_more_workers_run_than_allowed():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        for task_id in (1, 2, 3):
            pool.start(asker, an_attempt(task_id, "forever"))
        await eventually(lambda: len(pool.workers.pids) == 2)
        for task_id in (1, 2):
            pool.cancel(CancelActivity("i", "x", task_id))
        pool.start(asker, an_attempt(4, "who"))
        await eventually(lambda: 4 in asker.outcomes)
        assert len(pool.workers.pids) == 2

    with_pool(main, processes=2)


def test_an_app_that_cannot_be_imported_is_a_clear_failure():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "who"))
        await eventually(lambda: asker.outcomes)
        problem = "host.app: module 'tests.host.test_worker_pool' has no attribute 'nothing'"
        assert asker.outcomes[1].startswith(f"ConfigInvalid: {problem}")

    with_pool(main, reference="tests.host.test_worker_pool:nothing")
