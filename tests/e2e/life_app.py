"""What fails until a file is there."""

from __future__ import annotations

from pathlib import Path

from shardrt import App, OrchestrationContext

app = App()


@app.activity
def note(line: str) -> str:
    with Path("notes").open("a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")
    return line


@app.activity
def read(name: str) -> str:
    return Path(name).read_text(encoding="utf-8")


@app.orchestrator
async def part(ctx: OrchestrationContext, name: str) -> str:
    await ctx.call_activity(note, f"part of {name}")
    return await ctx.call_activity(read, name)


@app.orchestrator
async def whole(ctx: OrchestrationContext, name: str) -> str:
    await ctx.call_activity(note, f"whole of {name}")
    return await ctx.call_sub_orchestrator(part, name)


@app.orchestrator
async def approval(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("approval", str)
