"""Simulated processes: what stands still remembers, what is dead does nothing more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardrt.testing.sim.processes import Livelock, SimLoop, current, run_cluster
from shardrt.testing.virtual import pass_time

if TYPE_CHECKING:
    from shardrt.testing.sim.processes import Process


def test_a_stopped_process_does_in_order_what_was_due_once_it_goes_on():
    async def main(loop: SimLoop) -> None:
        process = loop.process("one", "here")
        seen: list[tuple[str, float]] = []

        async def work() -> None:
            while True:
                await pass_time(1.0)
                seen.append(("work", loop.time()))

        process.spawn(work())
        await pass_time(1.5)
        process.stop()
        process.after(0.2, seen.append, ("arrival", 0.0))
        await pass_time(5.0)
        assert seen == [("work", 1.0)]
        process.after(0.1, seen.append, ("later", 0.0))
        process.go_on()
        await pass_time(0.05)
        assert [what for what, _ in seen] == ["work", "arrival", "work"]
        await pass_time(0.1)
        assert seen[3:] == [("later", 0.0)]

    run_cluster(main)


def test_a_killed_process_does_not_clean_up_and_others_learn_of_its_end():
    ends: list[str] = []

    async def main(loop: SimLoop) -> None:
        process = loop.process("one", "here")
        process.on_death.append(lambda: ends.append("noticed"))

        async def work() -> None:
            try:
                await pass_time(100.0)
            finally:
                ends.append("cleaned up")

        process.spawn(work())
        process.after(2.0, ends.append, "acted")
        await pass_time(1.0)
        process.kill()
        await pass_time(200.0)
        assert ends == ["noticed"]

    run_cluster(main)


def test_whatever_a_process_starts_is_its_own():
    async def main(loop: SimLoop) -> None:
        process = loop.process("one", "here")
        seen: list[Process | None] = [current()]

        async def child() -> None:
            seen.append(current())

        async def work() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child())

        process.spawn(work())
        await pass_time(1.0)
        assert seen == [None, process]

    run_cluster(main)


def test_who_works_for_ever_without_time_passing_is_found_out():
    async def main(loop: SimLoop) -> None:
        def again() -> None:
            loop.call_soon(again)

        again()
        await pass_time(1.0)

    with pytest.raises(Livelock):
        run_cluster(main)
