"""One resident execution: user code that is suspended between two turns, kept in memory.

A turn moves time, hands over what arrived, one arrival after the other, and runs the code
after each until it waits again. (Not all at once: a timer and an event in one turn must not
let a cancelled waiter swallow the event.) A replay is nothing but turns whose actions are
compared instead of handed out.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import warnings
from asyncio.events import _set_running_loop
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from shardrt.core.history import (
    NULL,
    Arrival,
    CancelRequested,
    EntityLockGranted,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionCompleted,
    Failure,
    Status,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from shardrt.core.work import Canceled, Completed, Continued, Failed, Outcome
from shardrt.errors import InputInvalid
from shardrt.orchestration.context import OrchestrationContext
from shardrt.orchestration.failure import failure_of
from shardrt.orchestration.ledger import Guard, Ledger
from shardrt.orchestration.loop import (
    TURN_CALLBACKS_MAX,
    Handle,
    OrchestrationLoop,
)
from shardrt.orchestration.payload import encode
from shardrt.orchestration.source import line_of_coroutine

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from shardrt.core.work import WorkItem
    from shardrt.orchestration.definitions import OrchestratorDefinition, Registry
    from shardrt.orchestration.futures import Task
    from shardrt.orchestration.loop import Outside
    from shardrt.orchestration.middleware import Layers

logger = logging.getLogger(__name__)

CLOSE_ATTEMPTS_MAX = 10
"""So often is a coroutine that answers GeneratorExit with another await told to close."""

_Carried: TypeAlias = EventRaised | CancelRequested
_CARRIED = (EventRaised, CancelRequested)

_RUNAWAY = Failure(
    type="RuntimeError",
    message=f"one turn ran more than {TURN_CALLBACKS_MAX} callbacks without waiting for anything "
    "from outside: is there a loop around asyncio.sleep(0)?",
)

# Coroutines that could not be closed. Collected, they would complain on stderr each time.
_unclosable: list[Any] = []


class Execution:
    """See the module. Once `outcome` is there, or after `close`, nothing more may be called."""

    __slots__ = ("_body", "_cancel_reason", "_loop", "execution_id", "ledger", "outcome", "turn")

    _cancel_reason: str
    """Set when a request to cancel is delivered: hardly ever."""

    def __init__(
        self, execution_id: str, now: int, ready: deque[Handle], guard: Guard = "off"
    ) -> None:
        self.execution_id = execution_id
        self.turn = 0
        """The next turn to run."""
        self.outcome: Outcome | None = None
        self.ledger = Ledger(now, guard)
        self._loop = OrchestrationLoop(self.ledger, ready)  # type: ignore[abstract]
        self._body: Task[Any] | None = None

    def start(
        self,
        item: WorkItem,
        definition: OrchestratorDefinition,
        registry: Registry,
        layers: Layers | None = None,
    ) -> None:
        """Make the body, which runs with the first turn. Its input may not fit: an outcome."""
        started = item.started
        context = OrchestrationContext(
            instance_id=item.instance_id,
            execution_id=item.seed or item.execution_id,
            started=started,
            registry=registry,
            loop=self._loop,
        )
        try:
            if layers is None:
                body = definition.binding.call(context, started.input)
            else:
                self.ledger.permits = layers.permits(context)
                body = layers.body(context, definition.binding, started.input)
        except InputInvalid as error:
            self.outcome = Failed(failure_of(error))
        else:
            self._body = self._loop.create_body(body, contextvars.Context())

    def advance(self, at: int, arrivals: Sequence[Arrival], around: Outside) -> None:
        """Run one turn."""
        ledger = self.ledger
        if at > ledger.now:  # noqa: PLR1730 - hot
            ledger.now = at
        _set_running_loop(self._loop)
        try:
            self._run(arrivals)
        except BaseException:
            self._abandon()
            raise
        finally:
            _set_running_loop(around.loop)
            self.turn += 1

    def disagreement(self, end: ExecutionCompleted | None = None) -> str | None:
        """Return how the turn differs from what the ledger expected, if it does.

        Args:
            end: how the execution ended with this turn; None: it goes on.
        """
        ledger = self.ledger
        if ledger.mismatch is None:
            ledger.pass_deprecated()
            missing = len(ledger.actions)
            if missing < len(ledger.expected):
                line = line_of_coroutine(self._body.get_coro()) if self._body else ""
                ledger.disagree(
                    ledger.expected[missing], f"nothing more, and {self._state()}", line
                )
            elif end is not None:
                if self._ending() != end.status:
                    state = "the code waits" if self.outcome is None else self._state()
                    ledger.mismatch = f"not deterministic: history ends {end.status}, but {state}"
            elif self.outcome is not None:
                ledger.mismatch = f"not deterministic: history goes on, but {self._state()}"
        return ledger.mismatch

    def close(self, around: Outside) -> None:
        """Drop the execution: nothing that its code does from now on counts."""
        _set_running_loop(self._loop)
        try:
            self._abandon()
        finally:
            _set_running_loop(around.loop)

    # -- inside a turn ---------------------------------------------------------------------------

    def _run(self, arrivals: Sequence[Arrival]) -> None:
        body = self._body
        if body is None:
            return
        ends = self.turn > 0 or self._loop.drain(body)
        taken = 0
        for arrival in arrivals:
            if body.done() or not ends or self.ledger.inert:
                break
            self._deliver(arrival, body)
            ends = self._loop.drain(body)
            self.ledger.canceling = False
            taken += 1
        if self.ledger.mismatch is not None:
            self._abandon()
        elif not ends:
            self.outcome = Failed(_RUNAWAY)
            self._abandon()
        elif body.done():
            self.outcome = self._outcome(body, arrivals[taken:])
            self._abandon()

    def _deliver(self, arrival: Arrival, body: Task[Any]) -> None:
        ledger = self.ledger
        if type(arrival) is EventRaised:
            ledger.mailbox().arrive(arrival)
            return
        # Nobody waits for what was cancelled, or for what was never asked for.
        waiter = ledger.pending.pop(arrival.task_id, None)
        if waiter is None:
            if type(arrival) is CancelRequested:  # here, where it costs the others nothing
                self._cancel_reason = arrival.reason
                ledger.canceling = True  # until the code waits again
                body.cancel(arrival.reason or None)
            return
        match arrival:
            case TaskCompleted() | SubOrchestrationInstanceCompleted() | EntityOperationCompleted():
                waiter.complete(arrival.result)
            case TimerFired() | EntityLockGranted():
                waiter.complete(NULL)
            case TaskFailed() | SubOrchestrationInstanceFailed() | EntityOperationFailed():
                waiter.fail(arrival.failure)
            case CancelRequested():
                raise AssertionError("nobody waits for task 0")
            case _:
                assert_never(arrival)

    def _outcome(self, body: Task[Any], rest: Sequence[Arrival]) -> Outcome:
        if body.cancelled():
            reason = getattr(self, "_cancel_reason", None)
            if reason is not None:
                return Canceled(reason)
            return Failed(Failure(type="CancelledError", message="the body was cancelled"))
        error = body.exception()
        if error is not None:
            return Failed(failure_of(error))
        if self.ledger.continued is not None:
            payload, carries, version = self.ledger.continued
            return Continued(payload, self._unconsumed(rest, carries=carries), version)
        try:
            return Completed(encode(body.result(), "result"))
        except InputInvalid as invalid:
            return Failed(failure_of(invalid))

    def _unconsumed(self, rest: Sequence[Arrival], *, carries: bool) -> tuple[_Carried, ...]:
        """Return what the next execution is given; a request to cancel in any case."""
        if not carries:
            return tuple(event for event in rest if isinstance(event, CancelRequested))
        events = self.ledger.events
        buffered: tuple[_Carried, ...] = () if events is None else events.unconsumed()
        return buffered + tuple(event for event in rest if isinstance(event, _CARRIED))

    def _ending(self) -> Status | None:
        match self.outcome:
            case Completed():
                return Status.COMPLETED
            case Failed():
                return Status.FAILED
            case Canceled():
                return Status.CANCELED
            case _:
                return None

    def _state(self) -> str:
        match self.outcome:
            case None:
                return "waits"
            case Failed(failure):
                return f"the code ended with {failure.type}: {failure.message}"
            case Continued():
                return "the code continued as new"
            case _:
                return "the code ended"

    def _abandon(self) -> None:
        """Close all coroutines. The loop must be the running one, so that it is what they reach."""
        ledger = self.ledger
        ledger.inert = True
        tasks = self._loop.live_tasks()
        if self._body is not None and not self._body.done():
            tasks.insert(0, self._body)
        if tasks:
            # Coroutines that the code made and did not get to await are no mistake here.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for task in tasks:
                    _close(task)
                tasks.clear()
        for waiter in ledger.pending.values():
            _let_go(waiter)
        ledger.pending.clear()
        ledger.events = None
        ledger.permits = None  # they know the context, and it the ledger: a cycle
        self._loop.tasks = None  # they know the loop: a cycle


def _close(task: Task[Any]) -> None:
    coroutine: Any = task.get_coro()
    for _ in range(CLOSE_ATTEMPTS_MAX):
        try:
            coroutine.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            logger.debug("dropped orchestration raised %r", error)
        if getattr(coroutine, "cr_frame", None) is None:
            _let_go(getattr(task, "_fut_waiter", None))
            _let_go(task)
            return
    logger.warning("dropped orchestration does not let go%s", line_of_coroutine(coroutine))
    _unclosable.append(coroutine)


def _let_go(waiter: object) -> None:
    """Cut what was waited for from who waited: a cycle, which stays until garbage is collected.

    That is seldom, where so much is alive. Nobody is called back, for the loop is inert.
    """
    if isinstance(waiter, asyncio.Future):
        asyncio.Future.cancel(waiter)
    elif isinstance(waiter, Handle):
        Handle.cancel(waiter)
