"""History as the script of a replay: what arrived in each turn, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from shardrt.core.history import Action, Arrival, HistoryEvent, OrchestratorStarted

if TYPE_CHECKING:
    from collections.abc import Iterable

_ACTIONS = get_args(Action)
_ARRIVALS = get_args(Arrival)


@dataclass(slots=True)
class PastTurn:
    """One turn as it went."""

    at: int
    arrivals: list[Arrival] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)


def past_turns(history: Iterable[HistoryEvent]) -> list[PastTurn]:
    """Return the turns in a history. What the code does not see (suspensions) is left out."""
    turns: list[PastTurn] = []
    for event in history:
        if isinstance(event, OrchestratorStarted):
            turns.append(PastTurn(event.at))
        elif isinstance(event, _ARRIVALS):
            turns[-1].arrivals.append(event)
        elif isinstance(event, _ACTIONS):
            turns[-1].actions.append(event)
    return turns
