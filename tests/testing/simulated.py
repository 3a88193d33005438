"""Flows that use everything, and scenarios that drive them; run by itself, prints digests."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.testing import simulate
from shardrt.testing.virtual import pass_time

if TYPE_CHECKING:
    from shardrt.client import Client

app = App()
runs: Counter[str] = Counter()


@app.activity
async def charge(name: str) -> str:
    runs[name] += 1
    await pass_time(0.01)
    return f"r-{name}"


@app.activity
def render(text: str) -> str:
    return f"<{text}>"


@app.orchestrator
async def order(ctx: OrchestrationContext, name: str) -> str:
    receipt = await ctx.call_activity(charge, name)
    try:
        async with asyncio.timeout(86400):
            await ctx.wait_for_event("go", bool)
    except TimeoutError:
        return await ctx.call_activity(render, "late")
    await asyncio.sleep(30 * 86400)
    parts = await asyncio.gather(*(ctx.call_sub_orchestrator(part, n) for n in range(3)))
    ctx.signal_entity("@Total@all", "add", sum(parts))
    return f"{receipt} {sum(parts)}"


@app.orchestrator
async def part(ctx: OrchestrationContext, number: int) -> int:
    await asyncio.sleep(60)
    return len(await ctx.call_activity(charge, f"part {number}"))


@app.entity
class Total:
    value: int = 0

    def add(self, more: int) -> int:
        self.value += more
        return self.value


async def scenario(client: Client) -> None:
    runs.clear()
    early = await client.start(order, "early")
    late = await client.start(order, "late")
    await early.raise_event("go", True)
    assert await early.result() == "r-early 24"
    assert await late.result() == "<late>"
    assert await client.call_entity("@Total@all", "add", 1) in {1, 25}
    assert await client.call_entity("@Total@all", "add", 1) in {2, 26}
    events = [each.kind for each in await early.history()]
    assert events.count("TaskCompleted") == 1
    assert len([each async for each in client.list(name="part")]) <= 3


async def once(client: Client) -> None:
    """What nobody may rely on: that an activity runs once."""
    await scenario(client)
    assert max(runs.values()) == 1, f"ran more than once: {runs}"


if __name__ == "__main__":
    for each in simulate(app, scenario, seeds=range(1, 9)):
        print(each.seed, each.digest)  # noqa: T201 - what it is run for
