"""A human decides, or nobody does: an event with a timeout, and who is asked next.

    shardrt start approval --id trip-9 --input '{"what": "a trip", "amount": 900}'
    shardrt raise-event trip-9 decision --data '{"approved": true, "by": "Ada"}'

`asyncio.timeout` is durable: it fires three days later, whatever was restarted meanwhile. An
event that comes before anybody waits for it is kept.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from shardrt import App, OrchestrationContext

app = App()

BY_ITSELF_BELOW = 100
PATIENCE = timedelta(hours=72)
"""Of the first who is asked; the second one is given a day."""


@dataclass(frozen=True)
class Expense:
    """What somebody wants to have paid."""

    what: str
    amount: int


@dataclass(frozen=True)
class Decision:
    """The data of the event "decision", and the result."""

    approved: bool
    by: str


@app.activity
async def ask_for_approval(who: str) -> None:
    """Write to somebody; the answer comes as an event."""


@app.orchestrator
async def approval(ctx: OrchestrationContext, expense: Expense) -> Decision:
    """Ask the manager, then the director; without an answer it is refused."""
    if expense.amount < BY_ITSELF_BELOW:
        return Decision(approved=True, by="rule")
    for who, patience in (("manager", PATIENCE), ("director", timedelta(days=1))):
        ctx.set_custom_status(f"waiting for the {who}")
        await ctx.call_activity(ask_for_approval, who)
        try:
            async with asyncio.timeout(patience.total_seconds()):
                return await ctx.wait_for_event("decision", Decision)
        except TimeoutError:
            ctx.logger.info("the %s did not answer", who)
    return Decision(approved=False, by="timeout")
