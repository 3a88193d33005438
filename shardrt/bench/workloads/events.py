"""Start, wait for an external event, finish: what a request with a callback costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()


@app.orchestrator(name="bench.echo_event")
async def echo_event(ctx: OrchestrationContext) -> int:
    """Wait for the event "go" and return its data."""
    return await ctx.wait_for_event("go", int)


async def run(bench: Bench) -> None:
    """Run it again and again."""

    async def run_one(number: int) -> None:
        handle = await bench.client.start(echo_event)
        await handle.raise_event("go", number)
        check(await handle.result(), number, handle.instance_id)

    await bench.load(run_one)
