"""Orders under chaos: each one is completed, or what was done of it is undone.

    python -m shardrt.samples.chaos --seed 7

processes five orders in memory while activities are slow or fail and starts are refused, and
then lets memory, the processor and the network run short for a moment.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from shardrt import App, Client, OrchestrationContext, RetryPolicy, Runtime
from shardrt.errors import ActivityFailed, SchedulingVetoed
from shardrt.testing.chaos import (
    BasicChaosAgent,
    ChaosAgent,
    ChaosConfiguration,
    ResourceType,
    SafeChaosAgent,
    use_chaos,
)

app = App()

A_FEW = RetryPolicy(max_attempts=2, first_interval=0.01)
UNTIL_DONE = RetryPolicy(max_attempts=1000, first_interval=0.01, max_interval=0.1)
"""What is undone must be undone, however often that takes."""
START_PAUSE_S = 0.01


@dataclass(frozen=True)
class Fate:
    """How an order ended."""

    order: str
    status: str
    """completed, or compensated."""
    undone: list[str]


@app.activity(retry=A_FEW)
async def take_step(step: tuple[str, str]) -> str:
    """Reserve, charge or ship; the receipt is made of what was asked for, so twice is as once."""
    order, what = step
    return f"{what}-{order}"


@app.activity(retry=UNTIL_DONE)
async def undo_step(receipt: str) -> None:
    """Take it back, if it is there."""


@app.orchestrator
async def chaos_order(ctx: OrchestrationContext, order: str) -> Fate:
    done: list[str] = []
    try:
        for what in ("reserve", "charge", "ship"):
            # Noted before it is called: an attempt that fails may have had its effect.
            done.append(f"{what}-{order}")
            await ctx.call_activity(take_step, (order, what))
    except ActivityFailed:
        for receipt in reversed(done):
            await ctx.call_activity(undo_step, receipt)
        return Fate(order, "compensated", done)
    return Fate(order, "completed", [])


async def process_orders(client: Client, orders: Sequence[str]) -> list[Fate]:
    """Start them all, each until it has started, and return how they ended."""

    async def process(order: str) -> Fate:
        while True:
            try:
                handle = await client.start(
                    chaos_order, order, instance_id=f"order-{order}", on_conflict="return"
                )
                return await handle.result()
            except SchedulingVetoed:
                await asyncio.sleep(START_PAUSE_S)

    return await asyncio.gather(*(process(order) for order in orders))


async def demonstrate_resources(agent: ChaosAgent) -> None:
    """Let memory run short for two seconds, the processor and the network for one."""
    await agent.inject_resource_exhaustion(ResourceType.MEMORY, 2.0)
    await agent.inject_resource_exhaustion(ResourceType.CPU, 1.0)
    await agent.inject_network_partition(1.0)


async def demonstrate(seed: int) -> list[Fate]:
    configuration = ChaosConfiguration(
        enabled=True,
        default_failure_probability=0.3,
        default_latency_delay=0.01,
        resource_exhaustion_enabled=True,
        network_partition_enabled=True,
    )
    agent = BasicChaosAgent(random.Random(seed))  # noqa: S311 - no secret
    chaotic = App()
    chaotic.include(app)
    use_chaos(chaotic, agent, configuration)
    async with Runtime(chaotic, store="memory://") as runtime:
        fates = await process_orders(runtime.client, [f"{n}" for n in range(5)])
        await demonstrate_resources(SafeChaosAgent(agent, configuration))
    return fates


@click.command()
@click.option("--seed", default=0, show_default=True)
def main(**options: Any) -> None:
    """Process five orders under chaos, and print how each of them ended."""
    for fate in asyncio.run(demonstrate(**options)):
        undone = f", undone: {', '.join(fate.undone)}" if fate.undone else ""
        click.echo(f"order {fate.order}: {fate.status}{undone}")


if __name__ == "__main__":
    main(prog_name="python -m shardrt.samples.chaos")
