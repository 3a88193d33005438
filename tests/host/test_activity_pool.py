from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Raw

from shardrt import App
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core.effects import CancelActivity, RunActivity
from shardrt.core.history import Failure
from shardrt.host.activity_pool import ActivityPool
from shardrt.testing.virtual import pass_time, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

app = App()


@app.activity
async def nap(seconds: float) -> float:
    await pass_time(seconds)
    return seconds


@app.activity(max_concurrency=1)
async def alone(seconds: float) -> float:
    await pass_time(seconds)
    return seconds


@app.activity
async def leaves() -> None:
    raise SystemExit(3)


@app.activity
async def bursts() -> None:
    raise BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError()])


@app.activity
def cancels_in_thread() -> None:
    raise asyncio.CancelledError


class Partition:
    """Who asks, and the outcomes that it got with their times."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, str]] = []

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        text = outcome.type if isinstance(outcome, Failure) else bytes(outcome).decode()
        self.outcomes.append((run.task_id, text))


def with_pool(concurrency: int, main: Callable[[ActivityPool, Partition], Awaitable[None]]) -> None:
    async def run() -> None:
        settings = Settings(shard=ShardSettings(activity_concurrency_max=concurrency))
        pool = ActivityPool(app, settings, host_id="h", shard=0)
        await main(pool, Partition())
        await pool.close()

    run_virtual(run())


def an_attempt(task_id: int, name: str, seconds: float | None = None) -> RunActivity:
    payload = b"null" if seconds is None else str(seconds).encode()
    return RunActivity("i", "x", task_id, 1, name, Raw(payload))


def test_what_is_over_the_bound_of_the_shard_waits_in_line():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        for task_id in range(4):
            pool.start(asker, an_attempt(task_id, "nap", 10))
        await pass_time(15)
        assert [task_id for task_id, _ in asker.outcomes] == [0, 1]
        assert len(pool) == 2
        await pass_time(10)
        assert [task_id for task_id, _ in asker.outcomes] == [0, 1, 2, 3]

    with_pool(2, main)


def test_an_activity_at_its_own_bound_does_not_hold_up_others():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        for task_id in range(3):
            pool.start(asker, an_attempt(task_id, "alone", 100))
        pool.start(asker, an_attempt(3, "nap", 1))
        await pass_time(2)
        assert asker.outcomes == [(3, "1.0")]
        await pass_time(400)
        assert [task_id for task_id, _ in asker.outcomes] == [3, 0, 1, 2]

    with_pool(10, main)


def test_an_attempt_cancelled_before_it_ran_gives_its_place_back():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        pool.start(asker, an_attempt(1, "alone", 1))
        pool.start(asker, an_attempt(2, "alone", 1))
        pool.cancel(CancelActivity("i", "x", 1))
        pool.start(asker, an_attempt(3, "alone", 1))
        await pass_time(5)
        assert asker.outcomes == [(2, "1.0"), (3, "1.0")]
        assert len(pool) == 0

    with_pool(1, main)


def test_an_attempt_cancelled_in_line_never_starts():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        for task_id in range(3):
            pool.start(asker, an_attempt(task_id, "nap", 1))
        pool.cancel(CancelActivity("i", "x", 1))
        await pass_time(5)
        assert asker.outcomes == [(0, "1.0"), (2, "1.0")]

    with_pool(1, main)


def test_a_partition_that_goes_makes_room_for_others():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        other = Partition()
        pool.start(asker, an_attempt(1, "nap", 1000))
        pool.start(asker, an_attempt(2, "nap", 1000))
        pool.start(other, an_attempt(3, "nap", 1))
        pool.cancel_all(asker)
        await pass_time(5)
        assert (asker.outcomes, other.outcomes) == ([], [(3, "1.0")])

    with_pool(1, main)


def test_whatever_an_activity_raises_is_its_outcome():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        for task_id, name in enumerate(("leaves", "bursts", "cancels_in_thread", "unknown")):
            pool.start(asker, an_attempt(task_id, name))
        await pass_time(1)
        assert sorted(asker.outcomes) == [
            (0, "SystemExit"),
            (1, "BaseExceptionGroup"),
            (2, "CancelledError"),
            (3, "ActivityNotRegistered"),
        ]

    with_pool(10, main)


def test_a_time_out_is_a_failure_and_makes_room():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        slow = RunActivity("i", "x", 1, 1, "nap", Raw(b"100"), timeout=2_000_000)
        pool.start(asker, slow)
        pool.start(asker, an_attempt(2, "nap", 1))
        await pass_time(5)
        assert asker.outcomes == [(1, "TimeoutError"), (2, "1.0")]

    with_pool(1, main)
