"""History as the script of a replay: what arrived in each turn, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from shardrt.core.history import (
    Action,
    Arrival,
    CancelRequested,
    ExecutionCompleted,
    HistoryEvent,
    OrchestratorStarted,
    Status,
)
from shardrt.errors import RecordCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterable

_ACTIONS = get_args(Action)
_ARRIVALS = get_args(Arrival)
_SEEN = (*_ARRIVALS, *_ACTIONS, ExecutionCompleted)
_REFUSALS = frozenset({"InputInvalid", "PayloadTooLarge"})


@dataclass(slots=True)
class PastTurn:
    """One turn as it went."""

    at: int
    arrivals: list[Arrival] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    end: ExecutionCompleted | None = None
    """If it was the last one of an execution that ended by itself."""

    @property
    def was_refused(self) -> bool:
        """Whether the host's limits may have failed it, whatever the code wanted."""
        end = self.end
        return (
            end is not None
            and end.status is Status.FAILED
            and end.failure is not None
            and end.failure.type in _REFUSALS
            and not self.actions
        )


def past_turns(history: Iterable[HistoryEvent]) -> list[PastTurn]:
    """Return the turns in a history. What the code does not see (suspensions) is left out.

    So is how an execution ended that was cancelled before its first turn.

    Raises:
        RecordCorrupt: something happened before the first turn.
    """
    turns: list[PastTurn] = []
    for event in history:
        if isinstance(event, OrchestratorStarted):
            turns.append(PastTurn(event.at))
        elif not turns and _is_early_cancel(event):
            pass
        elif not turns and isinstance(event, _SEEN):
            raise RecordCorrupt(f"history begins with {type(event).__name__}, not with a turn")
        elif isinstance(event, _ARRIVALS):
            turns[-1].arrivals.append(event)
        elif isinstance(event, _ACTIONS):
            turns[-1].actions.append(event)
        elif isinstance(event, ExecutionCompleted):
            turns[-1].end = event
    return turns


def _is_early_cancel(event: HistoryEvent) -> bool:
    if isinstance(event, ExecutionCompleted):
        return event.status is Status.CANCELED
    return isinstance(event, CancelRequested)
