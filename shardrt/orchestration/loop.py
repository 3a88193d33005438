"""The event loop that runs one execution: asyncio, but durable and deterministic.

The ready queue is first-in-first-out; `time()` is the time of the turn; `call_later` makes
durable timers. That is all: whatever would reach outside (sockets, threads, processes,
signals) is refused by name. Every turn runs until nothing is ready any more, or the body
has ended.

The loop runs inside the loop of whoever hosts it, for the length of a turn (`outside`), and
keeps nothing of its own between turns but the timers in its ledger: a waiting instance
must be small. So the ready queue, always empty then, is shared by all loops of an executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from asyncio.events import _get_running_loop
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

import msgspec
from msgspec import Raw

from shardrt.core.history import Failure, TimerCanceled, TimerCreated
from shardrt.orchestration.futures import Future, Task
from shardrt.orchestration.ordered import refuse_unordered
from shardrt.orchestration.retry import US_PER_S

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from shardrt.orchestration.ledger import Ledger

logger = logging.getLogger(__name__)

T = TypeVar("T")

TURN_CALLBACKS_MAX = 1_000_000
"""A turn that runs more callbacks than this waits for nothing but itself and is stopped."""

FIRE_AT_MAX: Final = 253_402_300_799_000_000
"""End of the year 9999. Timers beyond it fire then."""

_TASKS_SWEPT_MIN = 16

_ONE_TASK_PER_THREAD = sys.version_info >= (3, 14)
"""Before, asyncio knew the current task of each loop."""


class Handle(msgspec.Struct, eq=False):
    """A callback in the ready queue; stands for `asyncio.Handle`, at a third of its cost."""

    callback: Callable[..., object] | None
    args: tuple[Any, ...]
    context: contextvars.Context

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None


class TimerHandle(Handle, eq=False):
    """A callback for later; stands for `asyncio.TimerHandle`."""

    at: float
    task_id: int
    loop: Any

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.callback = None
        self.args = ()
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.cancel_timer(self.task_id)

    def complete(self, _result: Raw) -> None:
        """Run the callback in this turn: the timer has fired."""
        loop, self.loop = self.loop, None
        loop.make_ready(self)

    def fail(self, _failure: Failure) -> None:
        """Never called: timers do not fail."""


class OrchestrationLoop(asyncio.AbstractEventLoop):
    """See the module."""

    __slots__ = ("_numbers", "_ready", "_sweep_at", "ledger", "tasks")

    def __init__(self, ledger: Ledger, ready: deque[Handle]) -> None:
        self.ledger = ledger
        self._ready = ready
        self._numbers = 0
        self.tasks: list[Task[Any]] | None = None
        """All tasks but the body's that may be alive. Strong: asyncio's own references are
        weak, and a task that the garbage collector takes is lost at no determined time."""
        self._sweep_at = _TASKS_SWEPT_MIN

    # -- running ----------------------------------------------------------------------------

    def drain(self, body: Task[Any]) -> bool:
        """Run callbacks until none is ready or the body is done; false if there is no end."""
        ready = self._ready
        left = TURN_CALLBACKS_MAX
        while ready:
            if not left:
                ready.clear()
                return False
            left -= 1
            handle = ready.popleft()
            callback = handle.callback
            if callback is None:
                continue
            try:
                handle.context.run(callback, *handle.args)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001
                message = "exception in a callback of an orchestration"
                self.call_exception_handler({"message": message, "exception": error})
            if body.done() or self.ledger.inert:
                ready.clear()
        return True

    def make_ready(self, handle: Handle) -> None:
        self._ready.append(handle)

    def cancel_timer(self, task_id: int) -> None:
        if self.ledger.pending.pop(task_id, None) is not None:
            self.ledger.emit(TimerCanceled(task_id))

    def new_number(self) -> int:
        """Return the next hash for a future or task."""
        self._numbers += 1
        return self._numbers

    def live_tasks(self) -> list[Task[Any]]:
        """Return the unfinished tasks, the body's not included, oldest first."""
        return [task for task in self.tasks or () if not task.done()]

    # -- what asyncio calls -------------------------------------------------------------------

    def call_soon(  # type: ignore[override] # without TypeVarTuple
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        if context is None:
            context = contextvars.copy_context()
        handle = Handle(callback, args, context)
        if not self.ledger.inert:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override] # without TypeVarTuple
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        now = self.ledger.now
        return self.call_at_us(now + _us(delay), callback, args, context)

    def call_at(  # type: ignore[override] # without TypeVarTuple
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at_us(_us(when), callback, args, context)

    def call_at_us(
        self,
        fire_at: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        """Create a durable timer; one that is due already makes the callback ready at once."""
        ledger = self.ledger
        if context is None:
            context = contextvars.copy_context()
        fire_at = min(fire_at, FIRE_AT_MAX)
        handle = TimerHandle(callback, args, context, fire_at / US_PER_S, 0, None)
        if ledger.inert:
            ledger.refuse()
        elif fire_at <= ledger.now:
            self._ready.append(handle)
        else:
            if ledger.permits is not None:
                ledger.permits.ask_for_timer(fire_at)
            handle.task_id = ledger.new_id()
            handle.loop = self
            ledger.pending[handle.task_id] = handle
            ledger.emit(TimerCreated(handle.task_id, fire_at))
        return handle

    def time(self) -> float:
        return self.ledger.now / US_PER_S

    def create_future(self) -> Future[Any]:
        if self.ledger.inert:
            self.ledger.refuse()
        return Future(loop=self)

    def create_task(
        self, coro: Any, *, name: object = None, context: Any = None, **options: Any
    ) -> Any:
        if isinstance(coro, asyncio.Future):
            return self._task_of(coro, name)
        if self.ledger.inert:
            coro.close()
            return self.create_future()
        refuse_unordered()
        number = self.new_number()
        # asyncio's default names count the tasks of the whole process.
        name = f"Task-{number}" if name is None else str(name)
        task: Task[Any] = Task(coro, loop=self, name=name, context=context, **options)
        task.number = number
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        self._remember(task)
        return task

    def _task_of(self, call: asyncio.Future[T], name: object) -> Any:
        """Return a task for what `TaskGroup.create_task(ctx.call_activity(…))` is given.

        asyncio wants a coroutine there; users have a call, and see no difference.
        """

        async def outcome() -> T:
            return await call

        task = self.create_task(outcome(), name=name)
        # Cancelled before its first step it would not have come to cancel the call.
        task.add_done_callback(lambda ended: ended.cancelled() and call.cancel())
        return task

    def create_body(self, coro: Coroutine[Any, Any, T], context: contextvars.Context) -> Task[T]:
        """Return the task of the body; its first step is ready."""
        task = Task(coro, loop=self, name="body", context=context)
        task.number = self.new_number()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        return task

    def _remember(self, task: Task[Any]) -> None:
        if self.tasks is None:
            self.tasks = []
        elif len(self.tasks) >= self._sweep_at:
            self.tasks = self.live_tasks()
            self._sweep_at = max(_TASKS_SWEPT_MIN, 2 * len(self.tasks))
        self.tasks.append(task)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what nobody else will hear of. During a replay it has been logged before."""
        if self.ledger.inert or self.ledger.replaying:
            return
        error = context.get("exception")
        logger.warning("orchestration: %s", context.get("message"), exc_info=error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.ledger.inert

    # Asked for by every future that is made. As a builtin it costs next to nothing.
    get_debug = staticmethod(bool)

    def set_debug(self, enabled: bool) -> None:
        """Do nothing: there is no debug mode."""

    def get_exception_handler(self) -> None:
        return None

    def get_task_factory(self) -> None:
        return None


def _us(duration: float) -> int:
    if duration >= FIRE_AT_MAX / US_PER_S:
        return FIRE_AT_MAX
    return round(duration * US_PER_S)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(_self: object, *_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"loop.{name}() is not available in an orchestrator, which must be deterministic: "
            "put sockets, files, threads and processes into an activity"
        )

    return refuse


def _refuse_the_rest() -> None:
    for name in vars(asyncio.AbstractEventLoop):
        if not name.startswith("_") and name not in vars(OrchestrationLoop):
            setattr(OrchestrationLoop, name, _refusal(name))
    OrchestrationLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


_refuse_the_rest()


class Outside(NamedTuple):
    """What is around turns."""

    loop: asyncio.AbstractEventLoop | None
    """Of the host. Runs whenever none of ours does."""


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Put aside what the host has running in this thread, so that turns can be taken.

    That is its task, and its hooks, which would close abandoned async generators on its loop.
    To find out takes as long as a short turn, so who takes many turns in a row does it once.
    """
    loop = _get_running_loop()
    task = None
    if loop is not None and _ONE_TASK_PER_THREAD:
        task = asyncio.current_task(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)  # noqa: SLF001
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        yield Outside(loop)
    finally:
        sys.set_asyncgen_hooks(*hooks)
        if loop is not None and task is not None:
            asyncio.tasks._enter_task(loop, task)  # noqa: SLF001
