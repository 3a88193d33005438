"""Many who share a limit, and note when they begin and end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Event

from shardrt import App, Limit, OrchestrationContext

app = App()


@app.activity(limit=Limit("door", concurrency=3))
def pass_through(name: str) -> None:
    note(f"begin {name}")
    Event().wait(0.05)  # so long does it take
    note(f"end {name}")


def note(line: str) -> None:
    with Path("notes").open("a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")


@app.orchestrator
async def visitor(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(pass_through, ctx.instance_id)


@app.orchestrator
async def crowd(ctx: OrchestrationContext, count: int) -> int:
    visitors = [ctx.call_sub_orchestrator(visitor, instance_id=f"v{n}") for n in range(count)]
    await asyncio.gather(*visitors)
    return count
