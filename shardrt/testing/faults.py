"""A store that fails as planned: before a call took effect, or after it did.

Every call is numbered, takes a while before and after its effect, and asks the plan what
becomes of it. A call that is under way when its caller is cut off (`cut`) may still take effect
later, as a statement does that has reached the server of a client that died.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from shardrt.errors import CommitUnknown, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from shardrt.store.base import Append, Store

T = TypeVar("T")

WRITES = frozenset({"append", "checkpoint", "claim", "release", "truncate"})
"""Calls whose outcome is unknown if they fail after they took effect."""


HELD_S = 0.001
"""How soon a call that was held goes on."""


class Fault(Enum):
    """What becomes of a call."""

    BEFORE = "before"
    """It fails, and nothing was changed."""
    AFTER = "after"
    """It takes effect, and then fails; of a stream, the first item comes before that."""
    LOST = "lost"
    """It fails, nobody knows whether before or after; nothing was changed."""
    CRASH_BEFORE = "crash before"
    """Its caller is cut off, and nothing was changed."""
    CRASH_AFTER = "crash after"
    """It takes effect, and its caller never learns of it."""


class Plan(Protocol):
    """Decides what fails."""

    def fault(self, number: int, name: str) -> Fault | None:
        """Return what becomes of the call with this number, from 1 on."""
        ...


class NoFaults:
    """Everything works."""

    def fault(self, number: int, name: str) -> Fault | None:  # noqa: ARG002
        return None


class FailCall:
    """One call fails."""

    def __init__(self, number: int, fault: Fault) -> None:
        self._number = number
        self._fault = fault

    def fault(self, number: int, name: str) -> Fault | None:  # noqa: ARG002
        return self._fault if number == self._number else None


class RandomFaults:
    """Each call fails with some probability, as long as `rate` is not 0."""

    def __init__(self, random: Random, rate: float) -> None:
        self.rate = rate
        self._random = random

    def fault(self, number: int, name: str) -> Fault | None:  # noqa: ARG002
        if self._random.random() >= self.rate:
            return None
        return self._random.choice((Fault.BEFORE, Fault.AFTER, Fault.LOST))


class Calls:
    """What the stores of one hub have in common: the plan, the count, and the latency."""

    def __init__(
        self, random: Random, plan: Plan | None = None, latency_s: tuple[float, float] = (0, 0)
    ) -> None:
        self.plan: Plan = plan or NoFaults()
        self.latency_s = latency_s
        """Least and most of the time before, and again after, a call's effect."""
        self.names: list[str] = []
        """All calls so far, in order."""
        self.failed: Counter[str] = Counter()
        self.held: set[str] = set()
        """Calls of these names do not take effect until they are taken out of here."""
        self.held_answers: set[str] = set()
        """Calls of these names take effect, but do not return until then."""
        self.records: dict[int, dict[int, bytes]] = {}
        """Partition → LSN → every record that was ever accepted."""
        self.fenced = 0
        """Appends refused because of their epoch."""
        self.random = random

    def next(self, name: str) -> Fault | None:
        """Number a call and return its fate."""
        self.names.append(name)
        return self.plan.fault(len(self.names), name)

    async def wait(self, name: str, held: set[str], random: Random | None = None) -> None:
        """Take a while, or until the call is not held any more."""
        least, most = self.latency_s
        if most > 0:
            await asyncio.sleep((random or self.random).uniform(least, most))
        while name in held:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(HELD_S)


class FaultyStore:
    """One process's connection to a hub. Implements `Store` over another store."""

    def __init__(self, store: Store, calls: Calls) -> None:
        self.url_masked = store.url_masked
        self.calls = calls
        self.is_cut = False
        self.on_crash: Callable[[], None] = lambda: None
        """Called for a crash that is planned."""
        self._store = store
        self._ghosts: set[asyncio.Task[Any]] = set()

    def cut(self) -> None:
        """Answer nothing any more: the process is dead."""
        self.is_cut = True

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    def stats(self) -> dict[str, int]:
        return self._store.stats()

    # -- calls -----------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Return the method of that name; see `store.base`."""
        method = getattr(self._store, name)
        if name in {"read", "active", "due"}:
            return lambda *args: self._stream(name, method, *args)
        return lambda *args, **options: self._call(name, lambda: method(*args, **options))

    async def append(self, batch: Sequence[Append]) -> set[int]:
        async def append() -> set[int]:
            accepted = await self._store.append(batch)
            for each in batch:
                if each.partition in accepted:
                    self.calls.records.setdefault(each.partition, {})[each.lsn] = each.record
                elif (await self._store.position(each.partition))[0] != each.epoch:
                    self.calls.fenced += 1
            return accepted

        return await self._call("append", append)

    async def _call(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        await self._die_if_cut()
        fault = self.calls.next(name)
        number = len(self.calls.names)
        if fault is Fault.CRASH_BEFORE:
            await self._crash()
        try:
            await self.calls.wait(name, self.calls.held)
        except asyncio.CancelledError:
            self._leave_ghost(number, name, effect)
            raise
        if fault in {Fault.BEFORE, Fault.LOST}:
            raise self._failure(name, fault)
        result = await effect()
        if fault is Fault.CRASH_AFTER:
            await self._crash()
        await self.calls.wait(name, self.calls.held_answers)
        await self._die_if_cut()
        if fault is Fault.AFTER:
            raise self._failure(name, fault)
        return result

    async def _stream(
        self, name: str, method: Callable[..., AsyncIterator[T]], *args: Any
    ) -> AsyncIterator[T]:
        await self._die_if_cut()
        fault = self.calls.next(name)
        await self.calls.wait(name, self.calls.held)
        if fault in {Fault.BEFORE, Fault.LOST}:
            raise self._failure(name, fault)
        if fault is Fault.CRASH_BEFORE:
            await self._crash()
        async for item in method(*args):
            await self._die_if_cut()
            yield item
            if fault is not None:
                break
        if fault is Fault.CRASH_AFTER:
            await self._crash()
        if fault is Fault.AFTER:
            raise self._failure(name, fault)

    # -- failures --------------------------------------------------------------------------------

    def _failure(self, name: str, fault: Fault | None) -> StoreError:
        self.calls.failed[name] += 1
        if fault is Fault.BEFORE or name not in WRITES:
            return StoreUnavailable(f"{name} failed as planned")
        return CommitUnknown(f"the answer to {name} was lost as planned")

    async def _crash(self) -> None:
        self.on_crash()
        self.cut()
        await self._die_if_cut()

    async def _die_if_cut(self) -> None:
        if self.is_cut:
            await asyncio.get_running_loop().create_future()

    def _leave_ghost(self, number: int, name: str, effect: Callable[[], Awaitable[object]]) -> None:
        """The caller was cut off: the call takes effect later, or never."""
        # Its own luck: a task group cancels in no particular order, and seeds must repeat.
        random = Random(number)  # noqa: S311
        if not self.is_cut or random.random() < 0.5:
            return

        async def haunt() -> None:
            await self.calls.wait(name, self.calls.held, random)
            await effect()

        ghost = asyncio.get_running_loop().create_task(haunt())
        self._ghosts.add(ghost)
        ghost.add_done_callback(self._haunted)

    def _haunted(self, ghost: asyncio.Task[Any]) -> None:
        self._ghosts.discard(ghost)
        if not ghost.cancelled():
            ghost.exception()  # such as being fenced: nobody is there to see it
