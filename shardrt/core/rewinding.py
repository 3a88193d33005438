"""Rewinding: a failed execution goes back to before the first failure that its code saw.

Let T be the first turn that was given a failure of an activity or a child, or the last turn if
none was. What happened before T stays. Successes, timers and events that arrived from T on are
given again; what failed is run again; what the code asked for from T on is forgotten, because
its code will ask again. The new execution has an id of its own, so that nothing that is still
under way for the old one can reach it.

Locks were given back when it failed. A critical section that was open at T therefore runs again
as a whole: T is then the turn that asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from shardrt.core import history as h

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FAILED = (h.TaskFailed, h.SubOrchestrationInstanceFailed, h.EntityOperationFailed)
_SUCCEEDED = (
    h.TaskCompleted,
    h.SubOrchestrationInstanceCompleted,
    h.TimerFired,
    h.EntityOperationCompleted,
)
_CANCELED = (h.TaskCanceled, h.TimerCanceled)
_SCHEDULED = (
    h.TaskScheduled,
    h.TimerCreated,
    h.SubOrchestrationInstanceCreated,
    h.EntityOperationCalled,
)

Call: TypeAlias = (
    h.TaskScheduled | h.TimerCreated | h.SubOrchestrationInstanceCreated | h.EntityOperationCalled
)


class Plan(NamedTuple):
    """How an execution is to be rewound."""

    history: tuple[h.HistoryEvent, ...]
    """What stays."""
    inbox: tuple[h.Arrival, ...]
    """What its code is given again."""
    orphans: tuple[tuple[int, str], ...]
    """(task id, instance id) of children that nobody will have asked for."""


def plan_of(history: Sequence[h.HistoryEvent], unseen: Iterable[h.Arrival]) -> Plan:
    """Return how to rewind an execution, given all of its history and its undelivered inbox."""
    cut = _cut(history)
    kept, dropped = tuple(history[:cut]), history[cut:]
    wanted = open_calls(kept)
    inbox: list[h.Arrival] = []
    for event in (*dropped, *unseen):
        if isinstance(event, _SUCCEEDED):
            if wanted.pop(event.task_id, None) is not None:
                inbox.append(event)
        elif isinstance(event, (h.EventRaised, h.CancelRequested)):
            inbox.append(event)
    orphans = [
        (task_id, call.instance_id)
        for task_id, call in open_calls((*dropped, *unseen)).items()
        if isinstance(call, h.SubOrchestrationInstanceCreated)
    ]
    return Plan(kept, tuple(inbox), tuple(orphans))


def _cut(history: Sequence[h.HistoryEvent]) -> int:
    """Return where the turn T begins."""
    cut = len(history)
    for index, event in enumerate(history):
        if isinstance(event, h.OrchestratorStarted):
            cut = index
        elif isinstance(event, _FAILED):
            break
    while (earlier := _open_section(history[:cut])) is not None:
        cut = earlier
    return cut


def _open_section(history: Sequence[h.HistoryEvent]) -> int | None:
    """Return where the turn begins that asked for a lock which is not given back, if any."""
    turn = 0
    wanted: dict[str, tuple[int, h.EntityLockRequested, set[str]]] = {}
    for index, event in enumerate(history):
        if isinstance(event, h.OrchestratorStarted):
            turn = index
        elif isinstance(event, h.EntityLockRequested):
            wanted[event.section] = turn, event, set(event.entities)
        elif isinstance(event, h.EntityUnlockSent) and event.section in wanted:
            left = wanted[event.section][2]
            left.discard(event.instance_id)
            if not left:
                del wanted[event.section]
        elif isinstance(event, h.TaskCanceled):
            wanted = {k: each for k, each in wanted.items() if each[1].task_id != event.task_id}
    return min((each[0] for each in wanted.values()), default=None)


def open_calls(events: Iterable[h.HistoryEvent]) -> dict[int, Call]:
    """Return the calls that neither ended nor were cancelled, by task id, oldest first."""
    calls: dict[int, Call] = {}
    for event in events:
        if isinstance(event, _SCHEDULED):
            calls[event.task_id] = event
        elif isinstance(event, (*_FAILED, *_SUCCEEDED, *_CANCELED)):
            calls.pop(event.task_id, None)
    return calls
