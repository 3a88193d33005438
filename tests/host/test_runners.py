from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
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
mark = ContextVar("mark", default="none")
begun: list[int] = []


@app.activity
async def at_once(n: int) -> int:
    begun.append(n)
    return n


@app.activity(max_concurrency=1)
async def alone(n: int) -> int:
    begun.append(n)
    return n


@app.activity
async def waits(n: int) -> int:
    begun.append(n)
    await pass_time(10)
    return n


@app.activity
async def is_slow_to_leave(n: int) -> None:
    try:
        await pass_time(10)
    finally:
        await pass_time(3)
        begun.append(n)


@app.activity
async def leaves_a_mark(text: str) -> str:
    before = mark.get()
    mark.set(text)
    return before


@app.activity
async def leaves_a_mark_and_waits(text: str) -> list[str]:
    before = mark.get()
    mark.set(text)
    await pass_time(1)
    between = mark.get()
    asyncio.get_running_loop().call_later(1, lambda: begun.append(len(mark.get())))
    await pass_time(2)
    return [before, between, mark.get()]


@app.activity
async def cancels_itself(changes_its_mind: bool) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    if changes_its_mind:
        task.uncancel()
    return "done"


@app.activity
async def cancels_itself_and_waits(n: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    begun.append(n)


@app.activity
async def has_a_limit(seconds: int) -> str:
    try:
        async with asyncio.timeout(seconds):
            await pass_time(10)
    except TimeoutError:
        await pass_time(1)
        return "late"
    return "in time"


@app.activity
async def tells_its_name(n: int) -> str:
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


class Partition:
    """Who asks, and the outcomes that it got."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Any] = {}
        self.on_outcome: Callable[[], None] = lambda: None

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        text = outcome.type if isinstance(outcome, Failure) else bytes(outcome).decode()
        self.outcomes[run.task_id] = text
        self.on_outcome()


def with_pool(
    main: Callable[[ActivityPool, Partition], Awaitable[None]], concurrency: int = 100
) -> None:
    async def run() -> None:
        begun.clear()
        settings = Settings(shard=ShardSettings(activity_concurrency_max=concurrency))
        pool = ActivityPool(app, settings, host_id="h", shard=0)
        await main(pool, Partition())
        await pool.close()
        assert len(asyncio.all_tasks()) == 1

    run_virtual(run())


def start(pool: ActivityPool, asker: Partition, *attempts: tuple[str, str]) -> None:
    for task_id, (name, payload) in enumerate(attempts):
        pool.start(asker, RunActivity("i", "x", task_id, 1, name, Raw(payload.encode())))


def cancel(pool: ActivityPool, task_id: int) -> None:
    pool.cancel(CancelActivity("i", "x", task_id))


async def a_turn() -> None:
    """Let everything run that is ready now, and nothing that becomes ready by that."""
    await asyncio.sleep(0)


def test_attempts_begin_in_the_order_in_which_they_were_started():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        names = ["at_once", "at_once", "waits", "at_once", "waits", "at_once"]
        start(pool, asker, *((name, str(n)) for n, name in enumerate(names)))
        await pass_time(20)
        assert begun == [0, 1, 2, 3, 4, 5]
        assert sorted(asker.outcomes) == begun

    with_pool(main)


def test_those_that_do_not_wait_share_a_task():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, *(("at_once", str(n)) for n in range(50)))
        assert len(asyncio.all_tasks()) == 2
        await a_turn()
        assert len(asker.outcomes) == 50

    with_pool(main)


def test_who_waits_holds_nobody_up():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("at_once", "0"), ("waits", "1"), ("at_once", "2"), ("waits", "3"))
        await pass_time(1)
        assert begun == [0, 1, 2, 3]
        assert sorted(asker.outcomes) == [0, 2]
        await pass_time(9.5)
        assert sorted(asker.outcomes) == [0, 1, 2, 3]

    with_pool(main)


def test_no_attempt_sees_the_context_variables_of_another():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        marks = [("leaves_a_mark", f'"{n}"') for n in range(3)]
        start(pool, asker, *marks, ("leaves_a_mark_and_waits", '"waiting"'), *marks)
        await pass_time(5)
        own = asker.outcomes.pop(3)
        assert own == '["none","waiting","waiting"]'
        assert begun == [len("waiting")]
        assert set(asker.outcomes.values()) == {'"none"'}

    with_pool(main)


@pytest.mark.parametrize("first", ["leaves_a_mark", "leaves_a_mark_and_waits"])
def test_nor_do_those_that_were_in_line(first: str):
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, (first, '"a"'), ("leaves_a_mark", '"b"'), ("leaves_a_mark", '"c"'))
        await pass_time(5)
        assert asker.outcomes[1] == asker.outcomes[2] == '"none"'

    with_pool(main, concurrency=1)


@pytest.mark.parametrize("changes_its_mind", ["false", "true"])
def test_an_attempt_that_cancels_its_task_harms_no_other(changes_its_mind: str):
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("cancels_itself", changes_its_mind), ("waits", "1"), ("waits", "2"))
        await pass_time(20)
        assert asker.outcomes == {0: '"done"', 1: "1", 2: "2"}

    with_pool(main)


def test_an_attempt_that_cancels_its_task_and_then_waits_has_failed():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("cancels_itself_and_waits", "0"), ("waits", "1"))
        await pass_time(20)
        assert asker.outcomes == {0: "CancelledError", 1: "1"}
        assert begun == [1]

    with_pool(main)


def test_a_time_limit_within_an_activity_is_kept():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        limits = [("has_a_limit", "1"), ("has_a_limit", "20"), ("has_a_limit", "1")]
        start(pool, asker, ("at_once", "0"), *limits)
        await pass_time(5)
        assert asker.outcomes == {0: "0", 1: '"late"', 3: '"late"'}
        await pass_time(10)
        assert asker.outcomes[2] == '"in time"'

    with_pool(main)


def test_an_attempt_cancelled_before_it_began_never_runs_and_makes_room_at_once():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("at_once", "0"), ("alone", "1"), ("at_once", "2"), ("alone", "3"))
        cancel(pool, 1)
        cancel(pool, 2)
        assert (len(pool), pool.lingering) == (2, 0)
        await pass_time(1)
        assert begun == [0, 3]
        assert sorted(asker.outcomes) == [0, 3]

    with_pool(main)


def test_nor_does_one_that_is_cancelled_behind_one_that_waits():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("waits", "0"), *(("at_once", str(n)) for n in (1, 2, 3)))
        cancel(pool, 1)
        await a_turn()  # those behind it have tasks now
        cancel(pool, 2)
        await pass_time(1)
        assert begun == [0, 3]

    with_pool(main)


def test_a_partition_that_goes_within_a_batch_takes_its_attempts_along():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        other = Partition()
        asker.on_outcome = lambda: pool.cancel_all(asker)
        start(pool, asker, ("at_once", "0"), ("alone", "1"), ("at_once", "2"), ("waits", "3"))
        pool.start(other, RunActivity("other", "x", 4, 1, "at_once", Raw(b"4")))
        pool.start(other, RunActivity("other", "x", 5, 1, "alone", Raw(b"5")))
        await pass_time(1)
        assert begun == [0, 4, 5]
        assert (sorted(asker.outcomes), sorted(other.outcomes)) == ([0], [4, 5])

    with_pool(main)


def test_an_attempt_that_waits_can_be_cancelled_and_cleans_up():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("is_slow_to_leave", "7"), ("waits", "1"))
        await pass_time(1)
        cancel(pool, 0)
        await pass_time(1)
        assert (pool.lingering, begun) == (1, [1])
        await pass_time(3)
        assert (pool.lingering, begun) == (0, [1, 7])
        await pass_time(10)
        assert asker.outcomes == {1: "1"}

    with_pool(main)


def test_what_starts_while_a_batch_runs_lets_the_loop_have_its_turn_first():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, *(("at_once", str(n)) for n in range(5)))
        for done in (2, 4, 5):
            await a_turn()
            assert len(begun) == done

    with_pool(main, concurrency=2)


def test_a_bug_in_who_takes_an_outcome_keeps_no_other_attempt_from_running():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        loop, seen = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))

        def complain() -> None:
            asker.on_outcome = lambda: None
            raise LookupError("a bug")

        asker.on_outcome = complain
        start(pool, asker, ("at_once", "0"), ("at_once", "1"), ("waits", "2"))
        await pass_time(20)
        assert sorted(asker.outcomes) == [0, 1, 2]
        gc.collect()  # nobody looks at the task
        assert [type(each) for each in seen] == [LookupError]

    with_pool(main)


def test_a_partition_that_finishes_waits_for_what_has_not_begun():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("waits", "0"), ("waits", "1"), ("leaves_a_mark", '"a"'))
        mark.set("that of the caller")
        await pool.finish(asker, 15.0)
        assert asker.outcomes == {0: "0", 1: "1", 2: '"none"'}

    with_pool(main)


def test_a_pool_that_closes_leaves_no_task_behind():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("at_once", "0"), ("waits", "1"), ("at_once", "2"))
        await pool.close()
        assert len(asyncio.all_tasks()) == 1
        assert begun == []

    with_pool(main)


def test_what_starts_after_somebody_has_cancelled_all_tasks_runs():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        start(pool, asker, ("at_once", "0"))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await pass_time(1)
        pool.start(asker, RunActivity("i", "x", 1, 1, "at_once", Raw(b"1")))
        await pass_time(1)
        assert begun == [0, 1]

    with_pool(main)


def test_a_task_is_called_as_the_activity_that_it_runs():
    async def main(pool: ActivityPool, asker: Partition) -> None:
        names = [("tells_its_name", "0"), ("waits", "1"), ("tells_its_name", "2")]
        start(pool, asker, ("at_once", "0"), *names)
        await a_turn()
        await a_turn()
        assert asker.outcomes[1] == asker.outcomes[3] == '"tells_its_name"'
        assert "waits" in {task.get_name() for task in asyncio.all_tasks()}

    with_pool(main)
