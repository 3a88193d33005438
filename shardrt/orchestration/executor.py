"""Runs orchestrators: work items in, steps out.

Keeps executions resident between their turns, so that a turn costs one resumption of a
coroutine. What is not resident is rebuilt from history. Nothing here raises because of what
user code does: that is always a step.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardrt.core.work import Parked, Step, WorkItem
from shardrt.errors import (
    ConfigInvalid,
    InputInvalid,
    NonDeterminism,
    OrchestratorNotRegistered,
)
from shardrt.orchestration.execution import Execution
from shardrt.orchestration.guard import adopt, install
from shardrt.orchestration.loop import outside
from shardrt.orchestration.middleware import layers_of
from shardrt.orchestration.replay import past_turns
from shardrt.orchestration.schedules import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from shardrt.core.history import HistoryEvent
    from shardrt.orchestration.definitions import Registry
    from shardrt.orchestration.ledger import Guard
    from shardrt.orchestration.loop import Handle, Outside
    from shardrt.orchestration.replay import PastTurn


class Executor:
    """Runs the orchestrators of one app. For one thread; not reentrant.

    It can be used inside a running event loop or without one. What happens to calls that are
    not deterministic is up to `guard`: they park the instance, or are logged, or let pass.
    """

    def __init__(self, app: Registry, guard: Guard = "refuse") -> None:
        self._app = app
        self._guard: Guard = guard
        self._sealer = app.sealer
        self._layers = layers_of(app)
        if guard != "off":
            install()
            adopt(app.orchestrators)
        self._residents: dict[str, Execution] = {}
        """By instance id."""
        self._ready: deque[Handle] = deque()
        """Shared by all loops; empty between turns."""
        self._around: Outside | None = None
        """What is around the turns that are taken now."""

    def __del__(self) -> None:
        # Coroutines that die with an abandoned executor must not notice either.
        if sys.is_finalizing():
            for execution in self._residents.values():
                execution.ledger.inert = True
        else:
            self.drop_all()

    def __len__(self) -> int:
        return len(self._residents)

    @contextmanager
    def turns(self) -> Iterator[Outside]:
        """Take turns in here, one after the other; what is around them is looked at only once.

        Whoever takes a single turn need not care.
        """
        if self._around is not None:
            yield self._around
            return
        with outside() as around:
            self._around = around
            try:
                yield around
            finally:
                self._around = None

    def holds(self, instance_id: str, execution_id: str, turn: int) -> bool:
        """Whether that execution is resident and this is its next turn."""
        held = self._residents.get(instance_id)
        return held is not None and held.turn == turn and held.execution_id == execution_id

    def run(self, item: WorkItem, history: Sequence[HistoryEvent] | None = None) -> Step:
        """Run one turn and return what it led to.

        Args:
            item: the turn.
            history: all events of the execution before this turn, in order: for each turn
                `OrchestratorStarted`, the arrivals, the actions. Looked at only if the
                execution is not resident at this turn (see `holds`) and this is not its
                first turn.

        Raises:
            ValueError: the history is needed and was not given.
        """
        around = self._around
        if around is None:
            with self.turns():
                return self.run(item, history)
        if self._sealer is not None:
            try:
                item = self._sealer.open_item(item)
                history = None if history is None else self._sealer.open_history(history)
            except InputInvalid as error:
                return _parked(item, str(error))
        execution = self._residents.pop(item.instance_id, None)
        if execution is not None and (
            execution.turn != item.turn or execution.execution_id != item.execution_id
        ):
            execution.close(around)
            execution = None
        if execution is None:
            if item.turn > 0 and history is None:
                raise ValueError(f"{item.instance_id!r} is not resident at turn {item.turn}")
            rebuilt = self._rebuild(item, history or ())
            if isinstance(rebuilt, Parked):
                return _parked(item, rebuilt.reason)
            execution = rebuilt
        execution.advance(item.at, item.arrivals, around)
        return self._step(item, execution)

    def revive(self, item: WorkItem, history: Sequence[HistoryEvent]) -> bool:
        """Make an execution resident as it stands before this turn; return whether that works.

        Args:
            item: the next turn, which is not run.
            history: as for `run`.
        """
        if self._sealer is not None:
            try:
                item = self._sealer.open_item(item)
                history = self._sealer.open_history(history)
            except InputInvalid:
                return False
        self.drop(item.instance_id)
        rebuilt = self._rebuild(item, history)
        if isinstance(rebuilt, Parked):
            return False
        self._residents[item.instance_id] = rebuilt
        return True

    def retrace(self, item: WorkItem, history: Sequence[HistoryEvent]) -> None:
        """Run the code again that a history is of, to its end; nothing of it stays.

        Results are not compared, as inputs of calls are not: only what was asked for, in which
        order, and whether it ended well.

        Args:
            item: what to start; the turn is not looked at.
            history: all events of the execution, ended or not.

        Raises:
            NonDeterminism: the code takes another course; says both sides.
            OrchestratorNotRegistered: the app has no such name or version.
            ConfigInvalid: the orchestrator cannot be called.
            InputInvalid: a payload cannot be opened.
            RecordCorrupt: this is no history.
        """
        if self._sealer is not None:
            item = self._sealer.open_item(item)
            history = self._sealer.open_history(history)
        turns = past_turns(history)
        if turns and turns[-1].was_refused:
            del turns[-1]
        execution = self._begin(item)
        with self.turns() as around:
            try:
                problem = _retrace(execution, turns, around)
            finally:
                execution.close(around)
        if problem is not None:
            raise NonDeterminism(problem)

    def events_awaited(self, instance_id: str) -> tuple[str, ...] | None:
        """Return the names of events that a resident waits for; None if it is not resident."""
        execution = self._residents.get(instance_id)
        if execution is None:
            return None
        mailbox = execution.ledger.events
        return () if mailbox is None else mailbox.awaited()

    def events_unclaimed(self, instance_id: str) -> Mapping[str, int]:
        """Return how many events of which names a resident has and does not wait for."""
        execution = self._residents.get(instance_id)
        mailbox = None if execution is None else execution.ledger.events
        return {} if mailbox is None else Counter(each.name for each in mailbox.unconsumed())

    def newest_version(self, name: str) -> str | None:
        """Return the version that a start of this orchestrator means, if it has any."""
        try:
            return self._app.find_orchestrator(name).version
        except OrchestratorNotRegistered:
            return None

    def drop(self, instance_id: str) -> bool:
        """Forget a resident, without its code noticing; false if there is none of that id."""
        execution = self._residents.pop(instance_id, None)
        if execution is None:
            return False
        with self.turns() as around:
            execution.close(around)
        return True

    def drop_all(self) -> None:
        """Forget all residents."""
        for instance_id in list(self._residents):
            self.drop(instance_id)

    def _step(self, item: WorkItem, execution: Execution) -> Step:
        outcome = execution.outcome
        if execution.ledger.mismatch is not None:
            return _parked(item, execution.ledger.mismatch)
        if outcome is None:
            self._residents[item.instance_id] = execution
        actions, status = execution.ledger.take()
        step = Step(item.instance_id, item.execution_id, item.turn, actions, outcome, status)
        return step if self._sealer is None else self._sealer.seal_step(step)

    def _rebuild(self, item: WorkItem, history: Sequence[HistoryEvent]) -> Execution | Parked:
        """Return the execution as it stands before the turn of `item`."""
        turns = past_turns(history) if item.turn else []
        if len(turns) != item.turn:
            return Parked(f"history holds {len(turns)} turns, but the next one is {item.turn}")
        try:
            execution = self._begin(item)
        except (OrchestratorNotRegistered, ConfigInvalid) as error:
            return Parked(str(error))
        if turns:
            with self.turns() as around:
                problem = _retrace(execution, turns, around)
                if problem is not None:
                    execution.close(around)
                    return Parked(problem)
        return execution

    def _begin(self, item: WorkItem) -> Execution:
        started = item.started
        execution = Execution(item.execution_id, started.at, self._ready, self._guard)
        definition = self._app.orchestrator_of(started.name, started.version)
        layers = self._layers
        if layers is not None and started.name in BUILT_IN:
            layers = None
        execution.start(item, definition, self._app, layers)
        return execution


def _retrace(execution: Execution, turns: Iterable[PastTurn], around: Outside) -> str | None:
    """Take the turns of the past again; return how the code differs from them, if it does."""
    ledger = execution.ledger
    for turn in turns:
        ledger.replaying = True
        ledger.expected = turn.actions
        execution.advance(turn.at, turn.arrivals, around)
        problem = execution.disagreement(turn.end)
        if problem is not None:
            return problem
        ledger.take()
    ledger.replaying = False
    ledger.expected = ()
    return None


def _parked(item: WorkItem, reason: str) -> Step:
    return Step(item.instance_id, item.execution_id, item.turn, (), Parked(reason))
