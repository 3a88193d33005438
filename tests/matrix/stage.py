"""What the scenarios of the matrix are made of.

A scenario is one feature of the programming model: a coroutine that brings it into the middle,
awaits `stage.middle()`, where its host may die, and then asserts how it ends. Orchestrators and
activities are beside it, in the module's `app`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.waiting import eventually

if TYPE_CHECKING:
    from shardrt import Client, OrchestrationStatus

STORES = ("memory", "sqlite", "postgres")
PATIENCE_S = 30.0
GATE_S = 90.0
"""Activities wait at gates for longer than any scenario for anything."""


@dataclass
class Stage:
    """One scenario's part of the world."""

    name: str
    client: Client
    """Another one after the middle, if the host was another one."""
    directory: Path
    """For files of activities; of this scenario alone."""
    store_url: str
    killed: bool
    """Whether the middle kills, so that activities run again."""
    reached: Callable[[Stage], Awaitable[None]]

    async def middle(self) -> None:
        """Let happen what happens in the middle; what is durable must go on after it."""
        await self.reached(self)

    def id(self, of: str = "") -> str:
        """Return an id that no other scenario has."""
        return f"{self.name}.{of}" if of else self.name

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def open_gate(self, name: str = "gate") -> None:
        """Let activities pass that wait for this file."""
        Path(self.path(name)).touch()

    def write(self, name: str, text: str) -> None:
        Path(self.path(name)).write_text(text, encoding="utf-8")

    def notes(self, name: str = "notes") -> list[str]:
        return notes(self.path(name))

    async def until(self, condition: Callable[[], object]) -> None:
        await eventually(condition, within_s=PATIENCE_S)

    async def noted(self, line: str, name: str = "notes") -> None:
        """Wait until an activity has noted this."""
        await self.until(lambda: line in self.notes(name))

    async def status(self, of: str = "") -> OrchestrationStatus:
        found = await self.client.get(self.id(of))
        assert found is not None
        return found

    async def shows(self, custom_status: Any, of: str = "") -> None:
        """Wait until an instance has this custom status."""

        async def is_shown() -> bool:
            return bool((await self.status(of)).custom_status == custom_status)

        await self.until(is_shown)

    async def is_in(self, status: str, of: str = "") -> None:
        """Wait until an instance has this status."""

        async def is_so() -> bool:
            return (await self.status(of)).status == status

        await self.until(is_so)

    async def result(self, of: str = "") -> Any:
        return await self.client.handle(self.id(of)).result(timeout=PATIENCE_S)


Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A feature; `play` fails if it does not work."""

    play: Play
    group: str
    stores: tuple[str, ...]
    virtual: bool
    """Whether it makes sense where activities run in the loop, and time is made up."""

    @property
    def name(self) -> str:
        return getattr(self.play, "__name__", "")


SCENARIOS: list[Scenario] = []


def scenario(
    *, group: str = "main", stores: tuple[str, ...] = STORES, virtual: bool = True
) -> Callable[[Play], Play]:
    """Add a coroutine function to the matrix; its name is that of the feature."""

    def add(play: Play) -> Play:
        SCENARIOS.append(Scenario(play, group, stores, virtual))
        return play

    return add


def note(path: str, line: object) -> int:
    """Append a line to a file; return how many there are."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return len(notes(path))


def notes(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


async def passed(path: str) -> None:
    """Wait for a gate, in an activity."""
    await eventually(Path(path).exists, within_s=GATE_S)


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
