"""``async with ctx.lock(a, b)``: some entities for one orchestration alone.

Inside, nothing may be asked that could wait for one of the entities, or make others wait in a
circle; what is not allowed raises `LockViolation` at once. The rules hold for all tasks of the
execution, from the moment the lock is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from shardrt.core.history import EntityLockRequested, EntityUnlockSent
from shardrt.errors import EntityFailed, LockViolation
from shardrt.orchestration.futures import CallFuture
from shardrt.orchestration.payload import ANY

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from shardrt.orchestration.ledger import Ledger
    from shardrt.orchestration.loop import OrchestrationLoop


class CriticalSection:
    """Made by `OrchestrationContext.lock`; for one ``async with``."""

    __slots__ = ("_calls", "_execution_id", "_granted", "_ledger", "_loop", "entities", "name")

    def __init__(
        self, entities: tuple[str, ...], execution_id: str, ledger: Ledger, loop: OrchestrationLoop
    ) -> None:
        self.entities = entities
        """Sorted: sections that take theirs in one order never wait in a circle."""
        self.name = ""
        """Unique in the hub; empty until it is asked for."""
        self._granted = False
        self._execution_id = execution_id
        self._ledger = ledger
        self._loop = loop
        self._calls: dict[str, asyncio.Future[Any]] = {}
        """The last call of each entity."""

    async def __aenter__(self) -> None:
        ledger = self._ledger
        if ledger.section is not None:
            ledger.section.refuse("no further lock can be taken")
        if self.name:
            raise LockViolation("a lock cannot be taken again: write ctx.lock(…) anew")
        granted = self._request()
        ledger.section = self
        try:
            await granted
        except BaseException:
            # Cancelled: the future has given the request up, unless it was granted by then.
            if granted.done() and not granted.cancelled():
                self._unlock()
            ledger.section = None
            raise
        self._granted = True

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """End the section; takes effect with this turn."""
        self._ledger.section = None
        self._unlock()

    def _request(self) -> CallFuture[Any]:
        ledger = self._ledger
        task_id = ledger.new_id()
        self.name = f"{self._execution_id}:{task_id}"
        ledger.emit(EntityLockRequested(task_id, self.name, self.entities))
        future: CallFuture[Any] = CallFuture(loop=self._loop)
        future.ledger = ledger
        future.task_id = task_id
        future.name = "lock"
        future.failed = EntityFailed
        future.codec = ANY
        ledger.pending[task_id] = future
        return future

    def _unlock(self) -> None:
        ledger = self._ledger
        if ledger.inert:
            return  # it is being dropped, which is not the end of the section
        for entity_id in self.entities:
            ledger.emit(EntityUnlockSent(ledger.new_id(), self.name, entity_id))

    # -- the rules -----------------------------------------------------------------------------

    def refuse(self, what: str) -> NoReturn:
        """Say what is not possible here."""
        raise LockViolation(f"{what} inside of a critical section ({', '.join(self.entities)})")

    def check_call(self, entity_id: str) -> None:
        """Refuse a call that could wait for ever."""
        if entity_id not in self.entities:
            self.refuse(f"{entity_id} cannot be called, as it is not locked,")
        if not self._granted:
            raise LockViolation(f"{entity_id} cannot be called before the lock on it is granted")
        last = self._calls.get(entity_id)
        if last is not None and not last.done():
            self.refuse(f"{entity_id} cannot be called again before it has answered,")

    def note_call(self, entity_id: str, future: asyncio.Future[Any]) -> None:
        """Remember a call that is under way."""
        self._calls[entity_id] = future

    def check_signal(self, entity_id: str) -> None:
        """Refuse a signal that would only be done after the section."""
        if entity_id in self.entities:
            self.refuse(f"{entity_id} cannot be signalled, only called,")
