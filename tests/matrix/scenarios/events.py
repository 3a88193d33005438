"""Events, timers, races, custom status, continuing as new, and what must be the same again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from shardrt import App, OrchestrationContext
from tests.matrix.stage import Stage, note, passed, scenario, time_of

app = App()


@app.orchestrator
async def buffered(ctx: OrchestrationContext) -> list[str]:
    await ctx.wait_for_event("go")
    return [await ctx.wait_for_event(name, str) for name in ("b", "a", "a")]


@scenario()
async def events_wait_for_their_waiters(stage: Stage) -> None:
    handle = await stage.client.start(buffered, instance_id=stage.id())
    for name, data in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        await handle.raise_event(name, data)
    await stage.middle()
    await stage.client.raise_event(stage.id(), "go")
    assert await stage.result() == ["b1", "a1", "a2"]


@app.orchestrator
async def receiver(ctx: OrchestrationContext) -> list[int]:
    return [await ctx.wait_for_event("n", int) for _ in range(10)]


@app.orchestrator
async def sender(ctx: OrchestrationContext, target: str) -> None:
    for n in range(5):
        ctx.send_event(target, "n", n)
    ctx.set_custom_status("half")
    await ctx.wait_for_event("go")
    for n in range(5, 10):
        ctx.send_event(target, "n", n)


@scenario()
async def sent_events_arrive_once_and_in_order(stage: Stage) -> None:
    await stage.client.start(receiver, instance_id=stage.id("to"))
    await stage.client.start(sender, stage.id("to"), instance_id=stage.id("from"))
    await stage.shows("half", "from")
    await stage.middle()
    await stage.client.raise_event(stage.id("from"), "go")
    assert await stage.result("to") == list(range(10))


@app.orchestrator
async def shows_progress(ctx: OrchestrationContext) -> None:
    ctx.set_custom_status({"done": 1, "of": [2]})
    await ctx.wait_for_event("go")
    ctx.set_custom_status("two")


@scenario()
async def custom_status_is_durable(stage: Stage) -> None:
    await stage.client.start(shows_progress, instance_id=stage.id())
    await stage.shows({"done": 1, "of": [2]})
    await stage.middle()
    assert (await stage.status()).custom_status == {"done": 1, "of": [2]}
    await stage.client.raise_event(stage.id(), "go")
    await stage.result()
    assert (await stage.status()).custom_status == "two"


@app.orchestrator
async def generations(ctx: OrchestrationContext, seen: list[int]) -> list[int]:
    ctx.set_custom_status(seen)
    seen = [*seen, await ctx.wait_for_event("n", int)]
    if len(seen) < 6:
        ctx.continue_as_new(seen)
    return seen


@scenario()
async def continue_as_new_carries_events(stage: Stage) -> None:
    handle = await stage.client.start(generations, [], instance_id=stage.id())
    first = (await stage.status()).execution_id
    await handle.suspend()
    for n in range(4):
        await handle.raise_event("n", n)
    await handle.resume()
    await stage.shows([0, 1, 2, 3])
    await stage.middle()
    for n in (4, 5):
        await stage.client.raise_event(stage.id(), "n", n)
    assert await stage.result() == [0, 1, 2, 3, 4, 5]
    assert (await stage.status()).execution_id != first
    assert [each.kind for each in await stage.client.history(stage.id())].count("EventRaised") == 1


@app.orchestrator
async def patient(ctx: OrchestrationContext) -> list[Any]:
    began = ctx.current_utc_datetime
    try:
        word = await ctx.wait_for_event("word", str, timeout=3.0)
    except TimeoutError:
        word = "nobody spoke"
    return [word, (ctx.current_utc_datetime - began).total_seconds() >= 3.0]


@scenario()
async def waits_for_events_time_out(stage: Stage) -> None:
    await stage.client.start(patient, instance_id=stage.id())
    await stage.middle()
    assert await stage.result() == ["nobody spoke", True]


@app.orchestrator
async def sleeps(ctx: OrchestrationContext) -> list[str]:
    ends = [ctx.current_utc_datetime]
    await ctx.create_timer(timedelta(seconds=3))
    ends.append(ctx.current_utc_datetime)
    await asyncio.sleep(0.5)
    ends.append(ctx.current_utc_datetime)
    return [each.isoformat() for each in ends]


@scenario()
async def timers_fire_and_never_early(stage: Stage) -> None:
    await stage.client.start(sleeps, instance_id=stage.id())
    await stage.middle()
    began, first, second = map(time_of, await stage.result())
    assert first - began >= timedelta(seconds=3)
    assert second - first >= timedelta(seconds=0.5)


@app.activity
async def gated(order: tuple[str, int]) -> int:
    directory, number = order
    if number % 2:
        await passed(f"{directory}/gate")
    note(f"{directory}/notes", number)
    return number * number


@app.orchestrator
async def race(ctx: OrchestrationContext, directory: str) -> str:
    slow = ctx.call_activity(gated, (directory, 1))
    timer = ctx.create_timer(timedelta(days=1))
    event = ctx.wait_for_event("word", str)
    every: set[asyncio.Future[Any]] = {slow, timer, event}
    done, pending = await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    return str(done.pop().result())


@scenario()
async def the_first_of_several_wins(stage: Stage) -> None:
    await stage.client.start(race, str(stage.directory), instance_id=stage.id())
    await stage.middle()
    await stage.client.raise_event(stage.id(), "word", "won")
    assert await stage.result() == "won"
    kinds = [each.kind for each in await stage.client.history(stage.id())]
    assert (kinds.count("TimerCanceled"), kinds.count("TaskCanceled")) == (1, 1)
    stage.open_gate()


@app.orchestrator
async def gathers(ctx: OrchestrationContext, directory: str) -> list[int]:
    return await asyncio.gather(*(ctx.call_activity(gated, (directory, n)) for n in range(10)))


@scenario()
async def gathered_results_are_in_order_and_kept(stage: Stage) -> None:
    await stage.client.start(gathers, str(stage.directory), instance_id=stage.id())

    async def half_is_done() -> bool:
        history = await stage.client.history(stage.id())
        return [each.kind for each in history].count("TaskCompleted") == 5

    await stage.until(half_is_done)
    await stage.middle()
    stage.open_gate()
    assert await stage.result() == [n * n for n in range(10)]
    assert sorted(line for line in stage.notes() if int(line) % 2 == 0) == list("02468")


@app.orchestrator
async def chances(ctx: OrchestrationContext) -> list[Any]:
    facts = [str(ctx.new_uuid()), ctx.random.random(), ctx.current_utc_datetime.isoformat()]
    ctx.set_custom_status(facts)
    await ctx.wait_for_event("go")
    return [*facts, str(ctx.new_uuid())]


@scenario()
async def chance_and_time_are_the_same_again(stage: Stage) -> None:
    await stage.client.start(chances, instance_id=stage.id())

    async def is_shown() -> object:
        return (await stage.status()).custom_status

    await stage.until(is_shown)
    facts = (await stage.status()).custom_status
    await stage.middle()
    await stage.client.raise_event(stage.id(), "go")
    *again, other = await stage.result()
    assert again == facts
    assert other != facts[0]


@app.orchestrator
async def patches(ctx: OrchestrationContext) -> list[bool]:
    ways = [ctx.patched("one")]
    ctx.set_custom_status(ways)
    await ctx.wait_for_event("go")
    return [*ways, ctx.patched("one"), ctx.patched("two")]


@scenario()
async def patches_are_recorded(stage: Stage) -> None:
    await stage.client.start(patches, instance_id=stage.id())
    await stage.shows([True])
    await stage.middle()
    await stage.client.raise_event(stage.id(), "go")
    assert await stage.result() == [True, True, True]
    marks = [e.name for e in await stage.client.history(stage.id()) if e.kind == "PatchMarked"]
    assert marks == ["one", "two"]
