"""What user code was running when a shard died, written down so that its supervisor can read it.

A small file that the shard maps into its memory and its supervisor reads once the shard is
dead: the kernel keeps what was written, however the process ended. It costs two copies within
memory per turn, and no system call. As that is a few per cent of a short turn, nothing is noted
until a shard of the host has died lately.

The event loop runs one piece of code at a time: a turn, or one stretch of an `async def`
activity between two awaits. That has the first slot, so what is in there is what the loop was
in. Activities in threads run side by side and have a slot each; which of them it was, nobody
can tell. Worker processes die alone and are not noted.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from pathlib import Path

    from shardrt.core.effects import RunActivity
    from shardrt.core.history import ExecutionStarted

T = TypeVar("T")

SLOT_BYTES = 4096
"""More than the longest ids that are accepted by default take; longer ones are not blamed."""
SLOTS = 64
SUFFIX = ".running"
"""Added to the path of a shard's socket."""
_LENGTH = 2


class Suspect(NamedTuple):
    """Code that was running."""

    instance_id: str
    execution_id: str = ""
    task_id: int | None = None
    """Of the activity; None for a turn of the instance or entity itself."""


class Orchestrator(NamedTuple):
    """Code that many instances run."""

    name: str
    version: str | None = None


class Found(NamedTuple):
    """What a dead shard has left."""

    in_loop: Suspect | None = None
    alone: tuple[Suspect, ...] = ()
    """Activities in threads that were suspected before, and run one at a time since."""
    in_threads: tuple[Suspect, ...] = ()
    """The other activities in threads."""
    orchestrator: Orchestrator | None = None
    """Of the turn that the loop was in."""


class BlackBox:
    """Notes what is running. Without a path it forgets it with the process."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._map = mmap.mmap(-1, SLOT_BYTES * SLOTS)
        else:
            with path.open("w+b") as file:
                file.truncate(SLOT_BYTES * SLOTS)
                self._map = mmap.mmap(file.fileno(), SLOT_BYTES * SLOTS)
        self._free = list(range(SLOTS - 1, 0, -1))
        self.watches = False
        """Whether anything is noted at all."""

    def enter(self, what: bytes) -> None:
        """Note what the loop is about to run."""
        end = _LENGTH + len(what)
        if end <= SLOT_BYTES:
            # The length comes last: whatever is read is whole.
            self._map[_LENGTH:end] = what
            self._map[0:_LENGTH] = len(what).to_bytes(_LENGTH, "little")

    def leave(self) -> None:
        """Note that the loop runs no code of users."""
        self._map[0:_LENGTH] = b"\0\0"

    def hold(self, what: bytes) -> int:
        """Note what a thread is about to run; return what to `free`. Call it in the loop."""
        end = _LENGTH + len(what)
        if not self.watches or not self._free or end > SLOT_BYTES:
            return 0
        slot = self._free.pop()
        start = slot * SLOT_BYTES
        self._map[start + _LENGTH : start + end] = what
        self._map[start : start + _LENGTH] = len(what).to_bytes(_LENGTH, "little")
        return slot

    def free(self, slot: int) -> None:
        """Note that the thread has done."""
        if slot:
            start = slot * SLOT_BYTES
            self._map[start : start + _LENGTH] = b"\0\0"
            self._free.append(slot)


def note_of(run: RunActivity, *, alone: bool = False) -> bytes:
    """Return an attempt of an activity as it is noted."""
    note = f"{run.instance_id}\0{run.execution_id}\0{run.task_id}"
    return (f"{note}\0" if alone else note).encode()


def note_of_turn(instance_id: str, started: ExecutionStarted) -> bytes:
    """Return a turn of an orchestrator as it is noted."""
    version = started.version
    named = f"{started.name}\0{version}" if version is not None else started.name
    return f"{instance_id}\0\0\0\0{named}".encode()


class Stretches(NamedTuple):
    """An awaitable that notes each stretch of another one's code."""

    box: BlackBox
    what: bytes
    awaited: Awaitable[Any]

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.awaited.__await__()
        thrown: BaseException | None = None
        while True:
            self.box.enter(self.what)
            try:
                waiting = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            finally:
                self.box.leave()
            thrown = None
            try:
                yield waiting
            except BaseException as error:  # noqa: BLE001 - it is for the code within
                thrown = error


def take(path: Path) -> Found:
    """Return what a dead shard has left, and remove it."""
    try:
        data = path.read_bytes()
        path.unlink()
    except OSError:
        return Found()
    notes = [data[start : start + SLOT_BYTES] for start in range(0, len(data), SLOT_BYTES)]
    found = [_read(note) for note in notes]
    in_loop, _, orchestrator = found[0] if found and found[0] is not None else (None, False, None)
    threads = [each for each in found[1:] if each is not None]
    return Found(
        in_loop,
        tuple(suspect for suspect, alone, _ in threads if alone),
        tuple(suspect for suspect, alone, _ in threads if not alone),
        orchestrator,
    )


def _read(slot: bytes) -> tuple[Suspect, bool, Orchestrator | None] | None:
    """Return what was noted, whether it runs alone, and of which orchestrator it is a turn."""
    length = int.from_bytes(slot[:_LENGTH], "little")
    if not length:
        return None
    parts = slot[_LENGTH : _LENGTH + length].decode(errors="replace").split("\0")
    if len(parts) == 1:
        return Suspect(parts[0]), False, None
    if len(parts) > 4:
        return Suspect(parts[0]), False, Orchestrator(*parts[4:6])
    instance_id, execution_id, task_id = parts[:3]
    return Suspect(instance_id, execution_id, int(task_id)), len(parts) == 4, None
