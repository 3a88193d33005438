"""Timers of days and weeks, that are cancelled when there is nothing left to wait for.

    python -m shardrt.samples timers
    shardrt start invoice --id inv-7
    shardrt raise-event inv-7 paid --data '"by card"'

A timer is a row with a time. It costs nothing while it waits, fires after a restart as well, and
never early. A cancelled one is forgotten: this orchestration ends as soon as the event comes.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shardrt import App, OrchestrationContext

app = App()


@dataclass(frozen=True)
class Terms:
    """How patient somebody is."""

    remind_every: timedelta = timedelta(hours=72)
    give_up_after: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class Settled:
    """How an invoice ended."""

    paid: str | None
    """How it was paid; None: it was not."""
    reminders: int
    after_h: float


@app.activity
async def send_reminder(number: int) -> str:
    return f"reminder {number}"


@app.orchestrator
async def invoice(ctx: OrchestrationContext, terms: Terms | None = None) -> Settled:
    """Remind every 72 hours until the event "paid" comes, for 30 days at most."""
    terms = terms or Terms()
    began = ctx.current_utc_datetime
    paid = ctx.wait_for_event("paid", str)
    deadline = ctx.create_timer(terms.give_up_after)
    reminders = 0
    while True:
        pause = ctx.create_timer(terms.remind_every)
        waited: set[asyncio.Future[Any]] = {paid, deadline, pause}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if paid.done() or deadline.done():
            break
        reminders += 1
        await ctx.call_activity(send_reminder, reminders)
    for timer in (pause, deadline):
        timer.cancel()
    elapsed = ctx.current_utc_datetime - began
    how = paid.result() if paid.done() else None
    return Settled(how, reminders, round(elapsed / timedelta(hours=1), 1))
