"""What runs while processes are killed: one orchestrator for each thing that can go wrong.

Every activity notes its effect in the ledger. Results are such that a lost, repeated or
reordered message shows in them.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy
from tests.chaos import bank, ledger

app = App()
app.include(bank.app)

CITIES = ("Tokyo", "Seattle", "London", "Amsterdam", "Mumbai")
SENDERS = 2
FAN_WIDTH = 20
TREE_WIDTH = 3
TREE_DEPTH = 2
RELAYED = 8
GENERATIONS = 5
FLAKY_ATTEMPTS = 3
RETRY = RetryPolicy(max_attempts=6, first_interval=0.05, backoff=1.0, jitter=0.5)


@dataclass(frozen=True)
class Mark:
    """What an activity returns: its input, and the token of its effect."""

    label: str
    token: str


@dataclass(frozen=True)
class Item:
    """The data of an external event: number n of a sender, or the end of what it sends."""

    sender: int
    number: int
    last: bool = False


def ended(items: list[Item]) -> bool:
    # A sender that was not told whether its last item arrived sends it once more.
    return len({item.sender for item in items if item.last}) == SENDERS


def effect_of(ctx: ActivityContext) -> str:
    return ledger.record(ctx.instance_id, ctx.execution_id, ctx.task_id, ctx.attempt)


@app.activity
async def mark(ctx: ActivityContext, label: str) -> Mark:
    token = effect_of(ctx)
    # Some take a while, so that there are always some that have had their effect, and not yet
    # returned, when their process dies.
    await asyncio.sleep(random.choice((0, 0, 0, 0.3)))
    return Mark(label, token)


@app.activity
def mark_in_thread(ctx: ActivityContext, label: str) -> Mark:
    return Mark(label, effect_of(ctx))


@app.activity(retry=RETRY)
async def mark_third_time(ctx: ActivityContext, label: str) -> Mark:
    token = effect_of(ctx)
    if ctx.attempt < FLAKY_ATTEMPTS:
        raise ConnectionError(f"attempt {ctx.attempt} fails on purpose")
    return Mark(f"{label} {ctx.attempt}", token)


@app.orchestrator
async def sequence(ctx: OrchestrationContext) -> list[str]:
    return [(await ctx.call_activity(mark, city)).label for city in CITIES]


@app.orchestrator
async def timers(ctx: OrchestrationContext) -> list[str]:
    """Sleep and time out; report every timer that fired before its time."""
    seen: list[str] = []
    for number in range(3):
        pause = timedelta(seconds=ctx.random.uniform(0.05, 0.4))
        due = ctx.current_utc_datetime + pause
        await ctx.create_timer(pause)
        await ctx.call_activity(mark_in_thread, f"slept {number}")
        seen.append("slept" if ctx.current_utc_datetime >= due else "woken early")
    try:
        async with asyncio.timeout(0.1):
            await ctx.wait_for_event("never")
    except TimeoutError:
        seen.append("timed out")
    return seen


@app.orchestrator
async def collect(ctx: OrchestrationContext) -> list[Item]:
    """Return all items in the order of their arrival, up to the end of each sender."""
    items: list[Item] = []
    while not ended(items):
        items.append(await ctx.wait_for_event("item", Item))
        if len(items) % 4 == 0:
            await ctx.call_activity(mark, f"{len(items)} items")
    return items


@dataclass(frozen=True)
class Collected:
    """What an execution of `collect_anew` hands to the next one."""

    items: list[Item]


@app.orchestrator
async def collect_anew(ctx: OrchestrationContext, before: Collected | None = None) -> list[Item]:
    """Do as `collect` does, with a new execution for each item."""
    items = before.items if before else []
    items = [*items, await ctx.wait_for_event("item", Item)]
    if not ended(items):
        ctx.continue_as_new(Collected(items))
    return items


@app.orchestrator
async def sink(ctx: OrchestrationContext) -> list[int]:
    return [await ctx.wait_for_event("number", int) for _ in range(RELAYED)]


@app.orchestrator
async def relay(ctx: OrchestrationContext) -> list[int]:
    """Start a child, most likely on another partition, and send it numbered events."""
    sink_id = f"{ctx.instance_id}-sink"
    child = ctx.call_sub_orchestrator(sink, instance_id=sink_id)
    for number in range(RELAYED):
        ctx.send_event(sink_id, "number", number)
        if number % 3 == 2:
            await ctx.call_activity(mark, f"sent {number}")
    return await child


@app.orchestrator
async def tree(ctx: OrchestrationContext, depth: int) -> int:
    """Return the number of leaves below."""
    if depth == 0:
        await ctx.call_activity(mark, "leaf")
        return 1
    children = (ctx.call_sub_orchestrator(tree, depth - 1) for _ in range(TREE_WIDTH))
    return sum(await asyncio.gather(*children))


@app.orchestrator
async def fan(ctx: OrchestrationContext) -> list[str]:
    calls = (ctx.call_activity(mark, str(number)) for number in range(FAN_WIDTH))
    return [each.label for each in await asyncio.gather(*calls)]


@app.orchestrator
async def retries(ctx: OrchestrationContext) -> list[str]:
    labels = ("first", "second")
    return [(await ctx.call_activity(mark_third_time, label)).label for label in labels]


@app.orchestrator
async def generations(ctx: OrchestrationContext, number: int) -> int:
    await ctx.call_activity(mark, f"generation {number}")
    if number < GENERATIONS:
        await asyncio.sleep(0.05)
        ctx.continue_as_new(number + 1)
    return number
