"""A small app, served over a real port by an embedded runtime, for those who speak to it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from shardrt import ActivityContext, App, EntityContext, OrchestrationContext, Runtime
from shardrt.http.azure_shapes import ROOT
from shardrt.http.process import QuietServer, uvicorn_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = App()
_refusals = {"left": 0}
_tried: set[str] = set()


@app.activity
def shout(text: str) -> str:
    return text.upper()


@app.activity
def refuse(text: str) -> str:
    if _refusals["left"] > 0:
        _refusals["left"] -= 1
        raise ValueError(text)
    return f"taken: {text}"


def refuse_next(times: int) -> None:
    _refusals["left"] = times


@app.orchestrator
async def hello(ctx: OrchestrationContext, name: Any) -> Any:
    """Return the name in capitals, or whatever else it is given as it is."""
    return await ctx.call_activity(shout, name) if isinstance(name, str) else name


@app.orchestrator
async def wait(ctx: OrchestrationContext) -> Any:
    """Return the data of the event `go`."""
    ctx.set_custom_status({"waits": True})
    return await ctx.wait_for_event("go")


@app.orchestrator
async def fragile(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(refuse, text)


@app.activity(max_concurrency=1)
def attempt(ctx: ActivityContext) -> str:
    """Fail once per instance."""
    if ctx.instance_id not in _tried:
        _tried.add(ctx.instance_id)
        raise RuntimeError("not yet")
    return "at last"


@app.orchestrator
async def flaky(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(attempt)


@app.orchestrator(name="versioned", version="1")
async def first_version(ctx: OrchestrationContext) -> str | None:
    return ctx.version


@app.orchestrator(name="versioned", version="2")
async def second_version(ctx: OrchestrationContext) -> str | None:
    return ctx.version


@app.entity
def counter(ctx: EntityContext, amount: Any) -> None:
    """Keep a number; `add` takes one, or text that is one. `keep` keeps what it is given."""
    if ctx.operation == "delete":
        ctx.delete_state()
    elif ctx.operation == "keep":
        ctx.set_state([amount])
    else:
        ctx.set_state(ctx.get_state(default=0) + int(amount or 1))


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Runtime, str]]:
    """Serve over a port; yield the runtime and its URL."""
    async with Runtime(app, partitions=4, settings=settings) as runtime:
        server = QuietServer(uvicorn_config(runtime.asgi()))
        listening = socket.create_server(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield runtime, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def azure_http(**settings: Any) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """Yield a runtime and an HTTP client of its Azure API."""
    async with Runtime(app, partitions=4, settings=settings) as runtime:
        transport = httpx.ASGITransport(runtime.asgi())
        base = f"http://host{ROOT}"
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            yield runtime, http
