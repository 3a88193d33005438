"""Futures and tasks of an orchestration.

asyncio keeps tasks in sets and walks over them (`wait`, `as_completed`, `TaskGroup`), and so
do users. A set's order follows from the hashes; those of plain futures are addresses, and so
differ from run to run. Here hashes are numbers, counted per loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from shardrt.core.history import EventRaised, Failure, TaskCanceled
from shardrt.errors import ActivityFailed, EntityFailed, InputInvalid, SubOrchestrationFailed
from shardrt.orchestration.failure import failure_of

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.orchestration.ledger import Ledger
    from shardrt.orchestration.payload import Codec

T = TypeVar("T")

_KINDS: dict[type[Exception], str] = {
    ActivityFailed: "activity",
    SubOrchestrationFailed: "sub-orchestration",
    EntityFailed: "operation",
}


class Future(asyncio.Future[T]):
    """A future that hashes by number."""

    __slots__ = ("number",)

    number: int

    def __hash__(self) -> int:
        try:
            return self.number
        except AttributeError:
            # Numbered when first asked for: most futures never are.
            self.number = self.get_loop().new_number()  # type: ignore[attr-defined]
            return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Task(asyncio.Task[T]):
    """A task that hashes by number, given by the loop right after it is made."""

    __slots__ = ("number",)

    number: int

    def __hash__(self) -> int:
        # While a task is being made it enters asyncio's set of all tasks of the process.
        # If the tasks of all instances had the same few hashes there, the set would be slow.
        return getattr(self, "number", None) or id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class CallFuture(Future[T]):
    """The result to be of an activity, child or operation. Cancelling it gives the call up."""

    __slots__ = ("codec", "failed", "ledger", "name", "task_id")

    ledger: Ledger
    task_id: int
    name: str
    codec: Codec[T]
    failed: type[ActivityFailed | SubOrchestrationFailed | EntityFailed]

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        if self.ledger.pending.pop(self.task_id, None) is not None:
            cooperative = self.ledger.canceling and self.failed is SubOrchestrationFailed
            self.ledger.emit(TaskCanceled(self.task_id, cooperative))
        return True

    def complete(self, result: Raw) -> None:
        if self.done():
            return
        try:
            value = self.codec.decode_json(result)
        except Exception as error:  # noqa: BLE001 - whatever a type's own checks raise
            # What it did is done: for its caller the call has failed, like any other.
            self.fail(failure_of(self.codec.invalid("its result", error)))
        else:
            self.set_result(value)

    def fail(self, failure: Failure) -> None:
        if not self.done():
            self.set_exception(self.failed(failure, f"{self._call()} failed: "))

    def _call(self) -> str:
        kind = _KINDS[self.failed]
        return f"{kind} {self.name!r} (task {self.task_id})"


class TimerFuture(Future[None]):
    """Done when a timer is due. Cancelling it cancels the timer."""

    __slots__ = ("handle",)

    handle: asyncio.TimerHandle

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self.handle.cancel()
        return True


class EventFuture(Future[T]):
    """An external event to be. Cancelling it leaves the event to others."""

    __slots__ = ("codec", "handle", "ledger", "name")

    ledger: Ledger
    name: str
    codec: Codec[T]
    handle: asyncio.TimerHandle | None
    """The time-out."""

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self._stop_waiting()
        return True

    def deliver(self, event: EventRaised) -> None:
        if self.handle is not None:
            self.handle.cancel()
        try:
            value = self.codec.decode(event.data, f"event {self.name!r}")
        except InputInvalid as error:
            self.set_exception(error)
        else:
            self.set_result(value)

    def expire(self) -> None:
        """Give up, because the time is over."""
        if not self.done():
            self.set_exception(TimeoutError(f"no event {self.name!r} in time"))
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        self.ledger.mailbox().forget(self.name, self)
        if self.handle is not None:
            self.handle.cancel()
