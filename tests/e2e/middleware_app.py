"""Middleware that leaves traces in files, for hosts of several processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shardrt import App, CallNext, ExecutionInfo, OrchestrationContext, SchedulingInfo

app = App()


@app.activity
async def in_loop(n: int) -> Any:
    return n


@app.activity
def in_thread(n: int) -> Any:
    return n


@app.activity(executor="process")
def in_process(n: int) -> Any:
    return n


@app.orchestrator
async def tour(ctx: OrchestrationContext, n: int) -> list[Any]:
    called = [ctx.call_activity(name, n) for name in ("in_loop", "in_thread", "in_process")]
    return [await each for each in called]


def note(line: str) -> None:
    with Path("seen").open("a", encoding="utf-8") as seen:
        seen.write(line)


@app.execution_middleware
async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
    note(f"{info.name} {info.input} {os.getpid()}\n")
    return [await call_next(), "seen"]


@app.scheduling_middleware
async def before(info: SchedulingInfo, call_next: CallNext) -> None:
    if info.input == 13:
        raise ValueError("13 brings bad luck")
    await call_next()
