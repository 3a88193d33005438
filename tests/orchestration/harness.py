"""Runs orchestrators against a world that a test controls: the smallest possible engine.

`Instance` is one execution: it hands work items to an executor, keeps the history that an
engine would keep, and knows what is pending. Tests answer by hand (`complete`, `fail`,
`fire`, `raise_event`) or let a `World` answer in random order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.core.history import (
    NULL,
    CancelRequested,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionStarted,
    Failure,
    OrchestratorStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCanceled,
    TimerCreated,
    TimerFired,
)
from shardrt.core.work import Completed, Continued, Failed, Parked, Step, WorkItem
from shardrt.orchestration.app import App
from shardrt.orchestration.executor import Executor

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from shardrt.core.history import Action, Arrival, HistoryEvent
    from shardrt.orchestration.context import OrchestrationContext

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


AWAITED = (
    TaskScheduled,
    TimerCreated,
    SubOrchestrationInstanceCreated,
    EntityOperationCalled,
    EntityLockRequested,
)


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def value_of(payload: Raw) -> Any:
    return msgspec.json.decode(payload)


class Instance:
    """One execution under the control of a test."""

    def __init__(
        self,
        app: App,
        name: str,
        input: object = None,  # noqa: A002
        *,
        instance_id: str = "i-1",
        execution_id: str = "0123456789abcdef0123456789abcdef",
        executor: Executor | None = None,
        version: str | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.executor = Executor(app) if executor is None else executor
        self.now = START
        self.started = ExecutionStarted(self.now, name, raw(input), version)
        self.history: list[HistoryEvent] = [self.started]
        self.turn = 0
        self.pending: dict[int, Action] = {}
        self.steps: list[Step] = []

    # -- turns -----------------------------------------------------------------------------------

    def run(self, *arrivals: Arrival, replay: bool = False) -> Step:
        """Run one turn; with `replay`, on code that is rebuilt from history first."""
        if replay:
            self.executor.drop(self.instance_id)
        step = self.executor.run(self.item(*arrivals), list(self.history))
        if not isinstance(step.outcome, Parked):
            self._record(step, arrivals)
        return step

    def item(self, *arrivals: Arrival) -> WorkItem:
        return WorkItem(
            self.instance_id, self.execution_id, self.turn, self.now, self.started, arrivals
        )

    def _record(self, step: Step, arrivals: tuple[Arrival, ...]) -> None:
        assert step.turn == self.turn
        self.history += [OrchestratorStarted(self.now), *arrivals, *step.actions]
        self.turn += 1
        self.steps.append(step)
        for arrival in arrivals:
            if not isinstance(arrival, EventRaised):
                self.pending.pop(arrival.task_id, None)
        for action in step.actions:
            if isinstance(action, (TaskCanceled, TimerCanceled)):
                self.pending.pop(action.task_id, None)
            elif isinstance(action, AWAITED):
                assert action.task_id not in self.pending
                self.pending[action.task_id] = action

    # -- answers ---------------------------------------------------------------------------------

    def completed(self, task_id: int, result: object = None) -> Arrival:
        if isinstance(self.pending.get(task_id), SubOrchestrationInstanceCreated):
            return SubOrchestrationInstanceCompleted(task_id, self.now, raw(result))
        if isinstance(self.pending.get(task_id), EntityOperationCalled):
            return EntityOperationCompleted(task_id, self.now, raw(result))
        if isinstance(self.pending.get(task_id), EntityLockRequested):
            return EntityLockGranted(task_id, self.now)
        return TaskCompleted(task_id, self.now, raw(result))

    def failed(self, task_id: int, kind: str = "ValueError", message: str = "no") -> Arrival:
        failure = Failure(type=kind, message=message, details="Traceback …")
        if isinstance(self.pending.get(task_id), SubOrchestrationInstanceCreated):
            return SubOrchestrationInstanceFailed(task_id, self.now, failure)
        if isinstance(self.pending.get(task_id), EntityOperationCalled):
            return EntityOperationFailed(task_id, self.now, failure)
        return TaskFailed(task_id, self.now, failure)

    def fired(self, task_id: int) -> Arrival:
        """Return the firing of a timer, and let its time come."""
        timer = self.pending[task_id]
        assert isinstance(timer, TimerCreated)
        self.now = max(self.now, timer.fire_at)
        return TimerFired(task_id, self.now)

    def raised(self, name: str, data: object = None) -> EventRaised:
        return EventRaised(self.now, name, raw(data))

    def complete(self, task_id: int, result: object = None) -> Step:
        return self.run(self.completed(task_id, result))

    def fail(self, task_id: int, kind: str = "ValueError", message: str = "no") -> Step:
        return self.run(self.failed(task_id, kind, message))

    def fire(self, task_id: int) -> Step:
        return self.run(self.fired(task_id))

    def raise_event(self, name: str, data: object = None) -> Step:
        return self.run(self.raised(name, data))

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def started(
    body: Callable[[OrchestrationContext], Awaitable[Any]], *others: App
) -> tuple[Instance, Step]:
    """Start an orchestrator with this body, and run its first turn."""
    app = App()
    for other in others:
        app.include(other)

    @app.orchestrator
    async def orchestrator(ctx: OrchestrationContext) -> Any:
        return await body(ctx)

    instance = Instance(app, "orchestrator", {"n": 1})
    return instance, instance.run()


class World:
    """Answers whatever an instance asks for, in an order drawn from `rng`."""

    def __init__(
        self,
        rng: random.Random,
        answer: Callable[[Instance, Action], Arrival],
        events: tuple[str, ...] = (),
        cancel_at: int = -1,
    ) -> None:
        self._rng = rng
        self._answer = answer
        self._events = events
        self._cancel_at = cancel_at
        """The turn that is cancelled from outside, if there is one of that number."""

    def drive(
        self, instance: Instance, turns_max: int, replays: Callable[[], bool] = lambda: False
    ) -> Step:
        """Run turns until there is an outcome or nothing can come any more."""
        step = instance.run(replay=replays())
        while step.outcome is None and instance.turn < turns_max:
            arrivals = self._arrivals(instance)
            if not arrivals:
                return step
            step = instance.run(*arrivals, replay=replays())
        return step

    def _arrivals(self, instance: Instance) -> list[Arrival]:
        pending = sorted(instance.pending)
        chosen = self._rng.sample(pending, min(len(pending), self._rng.randint(0, 3)))
        arrivals = [self._answer(instance, instance.pending[task_id]) for task_id in chosen]
        for name in self._events:
            if self._rng.random() < 0.3 or not arrivals:
                arrivals.append(instance.raised(name, self._rng.randint(0, 9)))
        if instance.turn == self._cancel_at:
            arrivals.append(CancelRequested(instance.now, "enough"))
        self._rng.shuffle(arrivals)
        instance.advance(self._rng.randint(0, 5))
        return arrivals


def result_of(step: Step) -> Any:
    """Return what the body returned."""
    assert isinstance(step.outcome, Completed), step.outcome
    return value_of(step.outcome.result)


def failure_in(step: Step) -> Failure:
    assert isinstance(step.outcome, Failed), step.outcome
    return step.outcome.failure


def continued(step: Step) -> Continued:
    assert isinstance(step.outcome, Continued), step.outcome
    return step.outcome


def reason_of(step: Step) -> str:
    """Return why the instance was parked."""
    assert isinstance(step.outcome, Parked), step.outcome
    assert step.actions == ()
    return step.outcome.reason


__all__ = [
    "NULL",
    "SECOND",
    "START",
    "Instance",
    "World",
    "continued",
    "failure_in",
    "raw",
    "reason_of",
    "result_of",
    "started",
    "value_of",
]
