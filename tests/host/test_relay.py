from __future__ import annotations

import asyncio
import contextlib
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import App
from shardrt.config import Settings
from shardrt.core.effects import CancelActivity, RunActivity
from shardrt.core.history import NULL, Failure
from shardrt.host.activity_pool import ActivityPool
from shardrt.testing.virtual import pass_time, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import Raw

USER: ContextVar[str] = ContextVar("USER", default="nobody")


class Scene:
    """A pool whose activities write down in which task and context they ran."""

    def __init__(self) -> None:
        self.app = App()
        self.started = 0
        self.tasks: list[int] = []
        self.kept: list[Any] = []
        self.users: list[str] = []
        self.outcomes: list[tuple[int, str]] = []
        self.pool: ActivityPool
        self.partition, self.epoch = 0, 1

    def note(self) -> None:
        self.tasks.append(id(asyncio.current_task()))
        self.users.append(USER.get())

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        text = outcome.type if isinstance(outcome, Failure) else bytes(outcome).decode()
        self.outcomes.append((run.task_id, text))

    def start(self, *names: str) -> None:
        for name in names:
            self.pool.start(self, RunActivity("i", "x", self.started, 1, name, NULL))
            self.started += 1

    def play(self, main: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            self.pool = ActivityPool(self.app, Settings(), host_id="h", shard=0)
            await main()
            await self.pool.close()

        run_virtual(run())


@pytest.fixture
def scene() -> Scene:
    scene = Scene()

    @scene.app.activity
    async def quick() -> None:
        scene.note()
        USER.set("somebody")

    @scene.app.activity
    async def naps() -> str:
        scene.note()
        before = asyncio.current_task()
        USER.set("napper")
        async with asyncio.timeout(60):
            await pass_time(1)
        assert asyncio.current_task() is before
        return USER.get()

    @scene.app.activity
    async def times_out() -> None:
        scene.note()
        async with asyncio.timeout(2):
            await pass_time(60)

    @scene.app.activity
    async def leaves() -> None:
        scene.note()
        raise SystemExit(3)

    return scene


def test_those_that_never_wait_share_a_task_but_no_context(scene: Scene):
    async def main() -> None:
        scene.start("quick", "quick", "leaves", "quick")
        await pass_time(1)

    scene.play(main)
    assert scene.outcomes == [(0, "null"), (1, "null"), (2, "SystemExit"), (3, "null")]
    assert len(set(scene.tasks)) == 1
    assert scene.users == ["nobody"] * 4


def test_one_that_waits_keeps_its_task_and_its_context_and_holds_up_nobody(scene: Scene):
    async def main() -> None:
        scene.start("quick", "naps", "naps", "quick", "times_out")
        await pass_time(0.5)
        assert scene.outcomes == [(0, "null"), (3, "null")]
        await pass_time(5)

    scene.play(main)
    assert scene.outcomes[2:] == [(1, '"napper"'), (2, '"napper"'), (4, "TimeoutError")]
    assert scene.users == ["nobody"] * 5


@pytest.mark.parametrize(
    "mark",
    [
        lambda scene, task: scene.kept.append(task),
        lambda scene, task: scene.kept.append(weakref.ref(task)),
        lambda scene, task: task.add_done_callback(scene.kept.append),
        lambda scene, task: task.cancel(),
    ],
    ids=["held", "watched", "called back", "cancelled"],
)
def test_a_task_on_which_code_has_left_a_trace_is_not_used_again(
    scene: Scene, mark: Callable[[Scene, Any], None]
):
    seen: list[Any] = []

    @scene.app.activity
    async def marks() -> None:
        mark(scene, asyncio.current_task())

    @scene.app.activity
    async def looks() -> None:
        seen.append(asyncio.current_task())

    async def main() -> None:
        scene.start("marks", "quick", "looks")
        await pass_time(1)

    scene.play(main)
    assert scene.outcomes == [(0, "null"), (1, "null"), (2, "null")]
    assert not seen[0].cancelled()
    with contextlib.suppress(IndexError):
        kept = scene.kept[0]
        assert (kept() if isinstance(kept, weakref.ref) else kept) is not seen[0]


def test_what_is_given_up_before_it_has_begun_never_begins(scene: Scene):
    @scene.app.activity(max_concurrency=1)
    async def alone() -> None:
        scene.note()

    async def main() -> None:
        scene.start("alone", "quick")
        scene.pool.cancel(CancelActivity("i", "x", 0))
        scene.start("alone")
        await pass_time(1)

    scene.play(main)
    assert len(scene.tasks) == 2
    assert scene.outcomes == [(1, "null"), (2, "null")]


def test_what_has_not_begun_is_left_to_the_next_owner(scene: Scene):
    async def main() -> None:
        scene.start("naps")
        await pass_time(0.5)
        scene.start("quick")
        await scene.pool.finish(scene, 60)
        assert len(scene.pool) == 0

    scene.play(main)
    assert scene.outcomes == [(0, '"napper"')]
