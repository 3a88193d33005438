"""The database server, and connections to it: a store in memory behind everything that can fail.

A call travels to the server, takes effect there, and its answer travels back: each may fail
alone. What reached the server takes effect also if who asked has died, or stands still.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

from shardrt.errors import CommitUnknown, StoreUnavailable
from shardrt.store.memory import MemoryStore
from shardrt.testing.faults import WRITES
from shardrt.testing.virtual import true_now_us

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Coroutine
    from random import Random

    from shardrt.testing.sim.ledger import Ledger
    from shardrt.testing.sim.network import Network
    from shardrt.testing.sim.processes import Process, SimLoop

PLACE = "database"
READS = frozenset({"load", "load_whole", "history"})
"""Calls that read certain instances."""
UNREADABLE_S = 5.0
"""How long the same instances cannot be read."""
CHUNK_MAX = 20
"""Most items of a stream that come at a time."""


@dataclass(slots=True, kw_only=True)
class Ailments:
    """How the server is; may be changed at any time."""

    latency_s: tuple[float, float] = (0.0002, 0.002)
    """Least and most of the time before, and again after, a call's effect."""
    stall: float = 0.0
    """Probability that a call takes much longer: up to `stall_s`."""
    stall_s: float = 0.0
    refusal: float = 0.0
    """Probability that a call fails and nothing was changed."""
    lost_answer: float = 0.0
    """Probability that a call takes effect, and then fails."""
    lost_call: float = 0.0
    """Probability that a call fails with nothing changed, and nobody knows."""
    ghost: float = 0.0
    """Probability that a call fails and takes effect later, if it still can."""
    unreadable: float = 0.0
    """Share of instances that cannot be read, others as time goes by."""
    is_away: bool = False
    hangs: bool = False
    """While it is away: callers wait, rather than being refused."""


class Server:
    """The database of a hub."""

    def __init__(self, loop: SimLoop, random: Random, network: Network, ledger: Ledger) -> None:
        self.loop = loop
        self.random = random
        self.network = network
        self.ledger = ledger
        self.ailments = Ailments()
        self.store = MemoryStore(lambda: true_now_us(loop))
        self.calls: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.last_s = 0.0
        """When the last of all calls under way gets through."""
        self.slow: dict[str, float] = {}
        """Place → how much longer each way to and from there may take, s."""

    async def create(self, partitions: int) -> None:
        await self.store.open()
        await self.store.create(partitions)

    def latency_s(self, place: str) -> float:
        """Draw how long one way takes between here and there."""
        ailments = self.ailments
        latency_s = self.random.uniform(*ailments.latency_s)
        if (slow_s := self.slow.get(place)) is not None:
            latency_s += self.random.random() * slow_s
        if ailments.stall and self.random.random() < ailments.stall:
            latency_s += self.random.random() * ailments.stall_s
        self.last_s = max(self.last_s, self.loop.time() + latency_s)
        return latency_s


class Connection:
    """One process's store. Implements `store.base.Store`; see there."""

    url_masked = "memory://simulated"

    def __init__(self, server: Server, process: Process) -> None:
        self._server = server
        self._process = process
        self._store = server.store.sibling()
        self._ghosts: list[_Call] = []
        """Appends that may still take effect."""

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        """Nothing to give back."""

    def stats(self) -> dict[str, int]:
        return self._store.stats()

    def __getattr__(self, name: str) -> Any:
        """Return the method of that name."""
        method = getattr(self._store, name)
        if name in {"read", "active", "due"}:
            return lambda *args: self._stream(name, method(*args))
        return lambda *args, **options: self._call(name, lambda: method(*args, **options), args)

    async def _stream(self, name: str, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        while True:
            count = self._server.random.randint(1, CHUNK_MAX)

            async def some(count: int = count) -> list[Any]:
                found = []
                async for item in items:
                    found.append(item)
                    if len(found) == count:
                        break
                return found

            chunk = await self._call(name, some, ())
            for item in chunk:
                yield item
            if len(chunk) < count:
                return

    async def _call(
        self, name: str, effect: Callable[[], Coroutine[Any, Any, Any]], args: tuple[Any, ...]
    ) -> Any:
        call = _Call(self._server, self._process, name, effect, args)
        if name == "position":
            self._bury()
        elif name == "append":
            self._ghosts = [each for each in self._ghosts if each.is_ghost]
            self._ghosts.append(call)
        call.send()
        return await call.answer

    def _bury(self) -> None:
        # What the protocol promises: an append is decided before a position is told.
        for ghost in self._ghosts:
            ghost.is_void = True
        self._ghosts.clear()


class _Call:
    """One call on its way."""

    def __init__(
        self,
        server: Server,
        process: Process,
        name: str,
        effect: Callable[[], Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
    ) -> None:
        self.is_ghost = False
        self.is_void = False
        self.answer: asyncio.Future[Any] = server.loop.create_future()
        self._server = server
        self._process = process
        self._name = name
        self._effect = effect
        self._args = args

    def send(self) -> None:
        server = self._server
        server.calls[self._name] += 1
        if server.network.is_cut(self._process.place, PLACE):
            self._fail_later(unknown=False)
        else:
            server.loop.later(server.latency_s(self._process.place), self._arrive)

    def _arrive(self) -> None:
        server, ailments, random = self._server, self._server.ailments, self._server.random
        if (self._process.is_dead or self.answer.cancelled()) and random.random() < 0.5:
            return
        if ailments.is_away:
            self._fail_later(unknown=False, at_once=not ailments.hangs)
            return
        draw = random.random()
        if self._is_unreadable() or (draw := draw - ailments.refusal) < 0:
            self._fail(unknown=False)
        elif (draw := draw - ailments.lost_call) < 0:
            self._fail(unknown=True)
        elif (draw := draw - ailments.ghost) < 0:
            self.is_ghost = True
            server.loop.later(random.random() * 3.0, self._haunt)
            self._fail(unknown=True)
        else:
            self._happen(draw - ailments.lost_answer < 0)

    def _is_unreadable(self) -> bool:
        share = self._server.ailments.unreadable
        if not share or self._name not in READS:
            return False
        period = self._server.loop.time() // UNREADABLE_S
        rows = self._server.store._hub.partitions  # noqa: SLF001 - its server
        ids = [
            each.instance_id
            for each in self._args[0]
            if each.instance_id in rows[each.partition].instances
        ]
        return any(crc32(f"{each} {period}".encode()) < share * 2**32 for each in ids)

    def _happen(self, is_lost: bool) -> None:
        if self.is_void:
            return
        server = self._server
        try:
            result = self._take_effect()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._tell(self._raise, error)
            return
        if is_lost or server.network.is_cut(PLACE, self._process.place):
            self._fail_later(unknown=True, at_once=is_lost)
        else:
            self._tell(self._return, result)

    def _haunt(self) -> None:
        if not self.is_void:
            try:
                self._take_effect()
            except Exception:  # noqa: BLE001 - nobody is there to see it
                return

    def _take_effect(self) -> Any:
        result = _finished(self._effect())
        self._server.ledger.on_call(self._name, self._args, result)
        return result

    # -- answers ---------------------------------------------------------------------------------

    def _fail(self, *, unknown: bool) -> None:
        self._server.failures[self._name] += 1
        self._tell(self._raise, self._failure(unknown))

    def _fail_later(self, *, unknown: bool, at_once: bool = False) -> None:
        """Fail, once the caller has waited long enough for an answer that does not come."""
        if at_once:
            self._fail(unknown=unknown)
            return
        self._server.failures[self._name] += 1
        patience_s = self._server.random.uniform(0.5, 4.0)
        self._process.after(patience_s, self._raise, self._failure(unknown))

    def _failure(self, unknown: bool) -> Exception:
        if unknown and self._name in WRITES:
            return CommitUnknown(f"the answer to {self._name} was lost as planned")
        return StoreUnavailable(f"{self._name} failed as planned")

    def _tell(self, act: Callable[..., None], value: Any) -> None:
        self._process.after(self._server.latency_s(self._process.place), act, value)

    def _return(self, result: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _raise(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def _finished(effect: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end what never waits."""
    try:
        effect.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a store in memory does not wait")
