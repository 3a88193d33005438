"""Orchestrations that end the process they run in, each in a way of its own."""

from __future__ import annotations

import ctypes
import os
import threading
from datetime import timedelta

from shardrt import App, OrchestrationContext

app = App()


@app.orchestrator
async def bomb(ctx: OrchestrationContext) -> None:
    """Ends the process whenever it runs, also the very first time."""
    ctypes.string_at(0)


@app.orchestrator
async def sleeper(ctx: OrchestrationContext) -> str:
    """Waits, and ends nothing but itself."""
    await ctx.wait_for_event("go")
    return "fine"


@app.orchestrator
async def hog(ctx: OrchestrationContext) -> None:
    """Never lets go of the loop, once its start is durable."""
    await ctx.create_timer(timedelta(milliseconds=1))
    while True:
        pass


@app.orchestrator
async def mine(ctx: OrchestrationContext) -> None:
    """Ends the process once its start is durable, whichever instance it is."""
    await ctx.create_timer(timedelta(milliseconds=1))
    ctypes.string_at(0)


@app.activity
async def leave() -> None:
    os._exit(9)


@app.activity
def leave_thread() -> None:
    threading.Event().wait(0.05)
    os._exit(9)


@app.activity
def wait_long() -> str:
    threading.Event().wait(1)
    return "waited"


@app.orchestrator
async def calls(ctx: OrchestrationContext, activity: str) -> str:
    try:
        return str(await ctx.call_activity(activity))
    except Exception as error:  # noqa: BLE001
        return str(error)
