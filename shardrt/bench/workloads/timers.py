"""Timers that all come due within one second: how late they fire, and that none is early.

Lateness is told by the hub's clock: from the due time to the time of the turn that the timer
leads to. The client watches with a clock of its own that no result comes before its time.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext, StartRequest
from shardrt.bench.errors import RunFailed, WrongAnswer

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()

STARTS_PER_S = 500
"""So slow a hub can still be measured."""
LEAD_S_MIN = 2.0
BATCH = 500
CLOCK_SLACK_S = 0.1
"""The hub's clock is corrected by the database's now and then, the client's is not."""


@app.orchestrator(name="bench.clock")
async def clock(ctx: OrchestrationContext) -> datetime:
    """Return what time it is at the hub."""
    return ctx.current_utc_datetime


@app.orchestrator(name="bench.timer")
async def timer(ctx: OrchestrationContext, due: datetime) -> float:
    """Wait until a time; return by how many seconds the hub was late."""
    await ctx.create_timer(due)
    return (ctx.current_utc_datetime - due).total_seconds()


async def run(bench: Bench) -> None:
    """Start them all, then wait for them all."""
    n = bench.options.n
    asked_s = time.perf_counter()
    now = await (await bench.client.start(clock)).result()
    lead_s = max(LEAD_S_MIN, n / STARTS_PER_S)
    due = [now + timedelta(seconds=lead_s + number / n) for number in range(n)]
    late: list[float] = []
    async with bench.accounting(n):
        ids = await _start(bench, due)
        if time.perf_counter() > asked_s + lead_s:
            raise RunFailed(f"starting {n} instances took longer than {lead_s:g} s")
        bar = bench.progress.add_task("waiting", total=n)

        async def wait(number: int) -> None:
            late_s = await bench.client.handle(ids[number], timer).result()
            # What the hub's clock showed when we asked came after we asked.
            early_s = asked_s + lead_s + number / n - time.perf_counter()
            if late_s < 0 or early_s > CLOCK_SLACK_S:
                raise WrongAnswer(f"{ids[number]} was early: {late_s} s late, {early_s} s early")
            late.append(late_s)
            bench.progress.advance(bar)

        async with asyncio.TaskGroup() as group:
            for number in range(n):
                group.create_task(wait(number))
    bench.note_durations("late_ms", late)


async def _start(bench: Bench, due: list[datetime]) -> list[str]:
    bar = bench.progress.add_task("starting", total=len(due))
    ids: list[str] = []
    for first in range(0, len(due), BATCH):
        wanted = [StartRequest(timer, each) for each in due[first : first + BATCH]]
        ids += [handle.instance_id for handle in await bench.client.start_many(wanted)]
        bench.progress.advance(bar, len(wanted))
    return ids
