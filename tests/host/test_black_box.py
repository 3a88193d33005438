"""What is running is found in the file, whatever becomes of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt.core.effects import RunActivity
from shardrt.core.history import ExecutionStarted
from shardrt.host.black_box import (
    SLOT_BYTES,
    SLOTS,
    BlackBox,
    Found,
    Orchestrator,
    Stretches,
    Suspect,
    note_of,
    note_of_turn,
    take as take_box,
)
from tests.loops import in_loop

if TYPE_CHECKING:
    from pathlib import Path

RUN = RunActivity("a", "exec", 7, 1, "act", Raw(b"null"))
ACTIVITY = Suspect("a", "exec", 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-0.running"


def test_what_the_loop_is_in_is_found_once(path: Path) -> None:
    box = BlackBox(path)
    box.watches = True
    box.enter(b"long name of an instance")
    box.leave()
    box.enter(b"one")
    assert take_box(path) == Found(Suspect("one"))
    assert take_box(path) == Found()


@pytest.mark.parametrize("version", [None, "2"])
def test_a_turn_is_found_with_its_orchestrator(path: Path, version: str | None) -> None:
    box = BlackBox(path)
    started = ExecutionStarted(at=0, name="spin", input=Raw(b"null"), version=version)
    box.enter(note_of_turn("a!1", started))
    assert take_box(path) == Found(Suspect("a!1"), orchestrator=Orchestrator("spin", version))


def test_nothing_is_found_when_nothing_runs(path: Path) -> None:
    box = BlackBox(path)
    box.watches = True
    box.enter(b"one")
    box.leave()
    box.free(box.hold(note_of(RUN)))
    assert take_box(path) == Found()


def test_activities_in_threads_are_found_beside_it(path: Path) -> None:
    box = BlackBox(path)
    box.watches = True
    box.free(box.hold(b"ended"))
    box.hold(note_of(RUN))
    box.hold(note_of(RUN, alone=True))
    box.enter(note_of(RUN))
    assert take_box(path) == Found(ACTIVITY, (ACTIVITY,), (ACTIVITY,))


def test_threads_are_not_noted_unless_it_watches(path: Path) -> None:
    assert BlackBox(path).hold(note_of(RUN)) == 0
    assert take_box(path) == Found()


def test_what_does_not_fit_is_not_noted(path: Path) -> None:
    box = BlackBox(path)
    box.watches = True
    box.enter(b"x" * SLOT_BYTES)
    assert box.hold(b"x" * SLOT_BYTES) == 0
    slots = [box.hold(note_of(RUN)) for _ in range(SLOTS)]
    assert slots[-1] == 0
    box.free(0)
    found = take_box(path)
    assert (found.in_loop, len(found.in_threads)) == (None, SLOTS - 1)


def test_a_process_that_is_killed_leaves_it(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from shardrt.host.black_box import BlackBox;"
        "BlackBox(Path(sys.argv[1])).enter(b'poison'); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -9
    assert take_box(path) == Found(Suspect("poison"))


@in_loop
async def test_only_the_stretches_of_a_coroutine_are_noted(path: Path) -> None:
    box = BlackBox(path)
    box.watches = True
    seen: list[object] = []

    def look() -> None:
        length = int.from_bytes(box._map[0:2], "little")
        seen.append(bytes(box._map[2 : 2 + length]))

    gate = asyncio.Event()

    async def code() -> str:
        look()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            look()
        return "done"

    task = asyncio.create_task(_awaits(Stretches(box, b"code", code())))
    await asyncio.sleep(0)
    look()
    task.cancel()
    assert await task == "done"
    look()
    assert seen == [b"code", b"", b"code", b""]


@in_loop
async def test_what_a_coroutine_raises_is_raised(path: Path) -> None:
    async def code() -> None:
        await asyncio.sleep(0)
        raise KeyError("no")

    box = BlackBox(path)
    box.watches = True
    with pytest.raises(KeyError):
        await _awaits(Stretches(box, b"code", code()))
    assert take_box(path) == Found()


async def _awaits(awaited: Stretches) -> object:
    return await awaited
