"""A state machine: states, events that lead from one to another, and a time limit.

    shardrt start ticket --id t-1
    shardrt raise-event t-1 do --data '"assign"'
    shardrt get t-1

The table is the program. What does not fit the state is noted and changes nothing. The state is
the custom status, so that anybody can see it; the path that was taken is the result.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from shardrt import App, OrchestrationContext

app = App()


class State(StrEnum):
    """Of a ticket."""

    OPEN = "open"
    ASSIGNED = "assigned"
    SOLVED = "solved"
    CLOSED = "closed"


TRANSITIONS: dict[State, dict[str, State]] = {
    State.OPEN: {"assign": State.ASSIGNED, "close": State.CLOSED},
    State.ASSIGNED: {"solve": State.SOLVED, "unassign": State.OPEN},
    State.SOLVED: {"reopen": State.ASSIGNED, "close": State.CLOSED},
    State.CLOSED: {},
}
CLOSE_AFTER_S = {State.SOLVED: 7 * 86_400.0}
"""States that end by themselves, as if somebody had closed the ticket."""


@dataclass(frozen=True)
class History:
    """The states a ticket was in, and what was asked of it in vain."""

    path: list[State]
    refused: list[str]


async def next_event(ctx: OrchestrationContext, state: State) -> str:
    try:
        async with asyncio.timeout(CLOSE_AFTER_S.get(state)):
            return await ctx.wait_for_event("do", str)
    except TimeoutError:
        return "close"


@app.orchestrator
async def ticket(ctx: OrchestrationContext) -> History:
    path, refused = [State.OPEN], list[str]()
    while TRANSITIONS[state := path[-1]]:
        ctx.set_custom_status(state)
        event = await next_event(ctx, state)
        if event in TRANSITIONS[state]:
            path.append(TRANSITIONS[state][event])
        else:
            refused.append(f"{event} while {state}")
    return History(path, refused)
