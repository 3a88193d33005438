"""Orchestrations that between them use everything, and how a client drives each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from shardrt import ActivityContext, App, Limit, OrchestrationContext, RetryPolicy
from shardrt.testing.client import HubClient
from shardrt.testing.virtual import pass_time

app = App()


@app.activity
async def tag(text: str) -> str:
    await pass_time(0.001)
    return f"<{text}>"


@app.activity
async def square(number: int) -> int:
    await pass_time(0.001 * (number % 3))
    return number * number


@app.activity
def in_thread(number: int) -> int:
    return -number


@app.activity(retry=RetryPolicy(max_attempts=4, first_interval=2.0, jitter=0.5))
async def third_time_lucky(ctx: ActivityContext) -> int:
    if ctx.attempt < 3:
        raise OSError(f"attempt {ctx.attempt}")
    return ctx.attempt


@app.activity(retry=RetryPolicy(max_attempts=2, first_interval=0.5))
async def hopeless(text: str) -> str:
    raise ValueError(text)


@app.orchestrator
async def sequence(ctx: OrchestrationContext, text: str) -> str:
    for _ in range(3):
        text = await ctx.call_activity(tag, text)
    return text


@app.orchestrator
async def fan_out(ctx: OrchestrationContext, count: int) -> int:
    squares = await asyncio.gather(*(ctx.call_activity(square, n) for n in range(count)))
    return sum(squares) + await ctx.call_activity(in_thread, count)


@app.orchestrator
async def approval(ctx: OrchestrationContext) -> str:
    await asyncio.sleep(5)
    try:
        async with asyncio.timeout(30):
            return await ctx.wait_for_event("approve", str)
    except TimeoutError:
        return await ctx.call_activity(tag, "late")


@app.orchestrator
async def parent(ctx: OrchestrationContext, children: int) -> list[str]:
    calls = [
        ctx.call_sub_orchestrator(child, n, instance_id=f"{ctx.instance_id}.{n}!{n}")
        for n in range(children)
    ]
    return list(await asyncio.gather(*calls))


@app.orchestrator
async def child(ctx: OrchestrationContext, number: int) -> str:
    ctx.set_custom_status({"number": number})
    await ctx.create_timer(timedelta(seconds=number))
    return await ctx.call_activity(tag, str(number))


@app.orchestrator
async def collect(ctx: OrchestrationContext, seen: list[int]) -> list[int]:
    """Two events per execution; those that came too early go along to the next."""
    for _ in range(2):
        seen.append(await ctx.wait_for_event("number", int))
        if len(seen) == 7:
            return seen
    await ctx.call_activity(square, len(seen))
    ctx.continue_as_new(seen)
    return []


@app.orchestrator
async def stubborn(ctx: OrchestrationContext) -> list[object]:
    try:
        await ctx.call_activity(hopeless, "no")
    except Exception as error:  # noqa: BLE001
        failed = type(error).__name__
    else:
        failed = ""
    return [await ctx.call_activity(third_time_lucky), failed]


@app.orchestrator
async def endless_family(ctx: OrchestrationContext, generations: int) -> None:
    if generations:
        name = f"{ctx.instance_id}.{generations}"
        await ctx.call_sub_orchestrator(endless_family, generations - 1, instance_id=name)
    await ctx.wait_for_event("never")


@app.activity(
    limit=Limit("narrow", concurrency=2, rate=3, per=0.5),
    limit_key=lambda key: key,
    retry=RetryPolicy(max_attempts=3, first_interval=0.1),
)
async def scarce(ctx: ActivityContext, key: str) -> int:
    await pass_time(0.01)
    if ctx.attempt < 2:
        raise OSError(key)
    return ctx.attempt


@app.orchestrator
async def limited(ctx: OrchestrationContext, count: int) -> list[int]:
    return list(await asyncio.gather(*(ctx.call_activity(scarce, "k!2") for _ in range(count))))


@app.orchestrator
async def limited_for_ever(ctx: OrchestrationContext, count: int) -> None:
    calls = [ctx.call_activity(scarce, "k!2") for _ in range(count)]
    await ctx.wait_for_event("never")
    await asyncio.gather(*calls)


@app.orchestrator
async def ping(ctx: OrchestrationContext, partner: str) -> list[int]:
    got = []
    for number in range(3):
        ctx.send_event(partner, "ball", number)
        got.append(await ctx.wait_for_event("ball", int))
    return got


@app.orchestrator
async def pong(ctx: OrchestrationContext, partner: str) -> None:
    for _ in range(3):
        number = await ctx.wait_for_event("ball", int)
        ctx.send_event(partner, "ball", number + 10)


# -- what a client does with them ------------------------------------------------------------------


async def drive_sequence(client: HubClient) -> None:
    assert await client.result(await client.start("sequence", "a")) == "<<<a>>>"


async def drive_fan_out(client: HubClient) -> None:
    assert await client.result(await client.start("fan_out", 5)) == 25


async def drive_approval(client: HubClient) -> None:
    punctual, late = f"yes.{client.name}!0", f"late.{client.name}!1"
    await client.start("approval", None, punctual)
    await client.start("approval", None, late)
    await client.raise_event(punctual, "approve", "fine")
    assert await client.result(punctual) == "fine"
    assert await client.result(late) == "<late>"


async def drive_parent(client: HubClient) -> None:
    family = f"family.{client.name}!1"
    await client.start("parent", 3, family)
    assert await client.result(family) == ["<0>", "<1>", "<2>"]


async def drive_collect(client: HubClient) -> None:
    box = f"box.{client.name}!0"
    await client.start("collect", [], box)
    for number in range(7):
        await client.raise_event(box, "number", number)
    assert await client.result(box) == list(range(7))


async def drive_stubborn(client: HubClient) -> None:
    assert await client.result(await client.start("stubborn")) == [3, "ActivityFailed"]


async def drive_termination(client: HubClient) -> None:
    root = f"end.{client.name}"
    await client.start("endless_family", 2, root)
    while await client.get(f"{root}.2.1") is None:
        await pass_time(0.05)
    await client.terminate(root, "enough")
    for instance_id in (root, f"{root}.2", f"{root}.2.1"):
        snapshot = await client.wait(instance_id)
        assert (snapshot.status, snapshot.reason) == ("Terminated", "enough"), snapshot


async def drive_ping_pong(client: HubClient) -> None:
    one, other = f"ping.{client.name}!0", f"pong.{client.name}!1"
    await client.start("pong", one, other)
    await client.start("ping", other, one)
    assert await client.result(one) == [10, 11, 12]
    await client.wait(other)


async def drive_limited(client: HubClient) -> None:
    names = [f"limited{n}.{client.name}!{n}" for n in range(2)]
    for name in names:
        await client.start("limited", 2, name)
    cut_short = f"cut.{client.name}!1"
    await client.start("limited_for_ever", 3, cut_short)
    await pass_time(0.02)
    await client.terminate(cut_short, "enough")
    for name in names:
        assert await client.result(name) == 2 * [2]
    await client.wait(cut_short)


Drive = Callable[[HubClient], Awaitable[None]]

DRIVES: dict[str, Drive] = {
    "sequence": drive_sequence,
    "fan_out": drive_fan_out,
    "approval": drive_approval,
    "sub_orchestrations": drive_parent,
    "continue_as_new": drive_collect,
    "retries": drive_stubborn,
    "termination": drive_termination,
    "events_between": drive_ping_pong,
    "limits": drive_limited,
}
