"""Middleware around activities in threads, processes and transactions, and over HTTP."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardrt import (
    ActivityContext,
    App,
    CallNext,
    ExecutionInfo,
    OrchestrationContext,
    Runtime,
    SchedulingInfo,
)
from shardrt.errors import ActivityFailed, OrchestrationFailed

if TYPE_CHECKING:
    from pathlib import Path

STORES = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.pg)]
TIMEOUT_S = 30.0

app = App()
log: list[str] = []
hurdles: list[str] = []
"""What is replayed."""


@app.activity
async def in_loop(n: int) -> list[Any]:
    return ["loop", n, os.getpid(), threading.get_ident()]


@app.activity
def in_thread(ctx: ActivityContext, n: int) -> list[Any]:
    return ["thread", n, os.getpid(), threading.get_ident()]


@app.activity(executor="process")
def in_process(n: int) -> list[Any]:
    return ["process", n, os.getpid(), threading.get_ident()]


@app.activity
async def fails_in_loop(n: int) -> None:
    raise LookupError(f"loop {n}")


@app.activity
def fails_in_thread(n: int) -> None:
    raise LookupError(f"thread {n}")


@app.activity(executor="process")
def fails_in_process(n: int) -> None:
    raise LookupError(f"process {n}")


@app.activity(timeout=0.05)
def hangs_around(n: int) -> None: ...


@app.orchestrator
async def calls(ctx: OrchestrationContext, name: str) -> Any:
    return await ctx.call_activity(name, 3)


@app.orchestrator
async def waits(ctx: OrchestrationContext) -> list[Any]:
    first = await ctx.call_activity(in_loop, 1)
    await ctx.wait_for_event("go")
    return [first[1], (await ctx.call_activity(in_loop, 2))[1]]


@app.execution_middleware
async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
    log.append(f"{info.name} {info.input} {info.attempt}")
    assert threading.current_thread() is threading.main_thread()
    if info.name == "hangs_around":
        await asyncio.Event().wait()
    try:
        result = await call_next()
    except (LookupError, ActivityFailed) as error:
        log.append(f"{type(error).__name__}: {error}")
        if "thread" in info.name:
            raise RuntimeError("wrapped") from error
        raise
    return [*result, "seen"]


@app.execution_middleware(kinds=["orchestration"])
async def outside(info: ExecutionInfo, call_next: CallNext) -> Any:
    hurdles.append(info.instance_id)
    return await call_next()


@app.scheduling_middleware
async def before(info: SchedulingInfo, call_next: CallNext) -> None:
    if info.tags.get("tenant") == "banned":
        raise PermissionError(f"{info.name} is not for you")
    await call_next()


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    log.clear()
    hurdles.clear()


@pytest.mark.proc
@pytest.mark.parametrize("name", ["in_loop", "in_thread", "in_process"])
def test_it_runs_in_the_loop_wherever_the_activity_runs(name: str):
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            handle = await runtime.client.start(calls, name)
            where, n, pid, thread, seen = await handle.result(timeout=TIMEOUT_S)
            assert (f"in_{where}", n, seen) == (name, 3, "seen")
            assert (pid == os.getpid()) == (name != "in_process")
            assert (thread == threading.get_ident()) == (name == "in_loop")

    asyncio.run(main())
    assert log == [f"{name} 3 1"]


@pytest.mark.proc
@pytest.mark.parametrize(
    ("name", "seen", "recorded"),
    [
        ("fails_in_loop", "LookupError: loop 3", "LookupError: loop 3"),
        ("fails_in_thread", "LookupError: thread 3", "RuntimeError: wrapped"),
        (
            "fails_in_process",
            "FailedElsewhere: activity 'fails_in_process' failed: LookupError: process 3",
            "LookupError: process 3",
        ),
    ],
)
def test_it_sees_what_the_activity_raises(name: str, seen: str, recorded: str):
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            handle = await runtime.client.start(calls, name)
            with pytest.raises(OrchestrationFailed) as caught:
                await handle.result(timeout=TIMEOUT_S)
            failed = caught.value.failure.cause
            assert failed is not None
            assert f"{failed.type}: {failed.message}" == recorded
            if name == "fails_in_thread":
                assert failed.cause is not None
                assert failed.cause.type == "LookupError"

    asyncio.run(main())
    assert log == [f"{name} 3 1", seen]


def test_the_time_limit_of_an_activity_in_a_thread_covers_what_is_around_it():
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            handle = await runtime.client.start(calls, "hangs_around")
            with pytest.raises(OrchestrationFailed, match=r"did not end within 0\.05 s"):
                await handle.result(timeout=TIMEOUT_S)

    asyncio.run(main())


@pytest.mark.parametrize("store", STORES)
def test_a_replay_runs_what_is_inside_again_and_nothing_else(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
):
    urls = {
        "memory": lambda: "memory://middleware",
        "sqlite": lambda: f"sqlite:///{tmp_path}/hub.db",
        "postgres": lambda: str(request.getfixturevalue("hub_dsn")),
    }
    url = urls[store]()

    def runtime() -> Runtime:
        return Runtime(app, store=url, partitions=2, settings={"store.unsafe": True})

    async def main() -> None:
        async with runtime() as first:
            await first.client.start(waits, instance_id="i")
            async with asyncio.timeout(TIMEOUT_S):
                while len(await first.client.history("i")) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        async with runtime() as second:
            await second.client.raise_event("i", "go")
            handle = second.client.handle("i")
            assert await handle.result(timeout=TIMEOUT_S) == [1, 2]

    asyncio.run(main())
    assert log == ["in_loop 1 1", "in_loop 2 1"]
    assert hurdles == ["i", "i"]


def test_a_start_over_http_that_is_vetoed_is_forbidden_with_the_message():
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            transport = httpx.ASGITransport(app=runtime.asgi())
            async with httpx.AsyncClient(transport=transport, base_url="http://h") as http:
                url = "/runtime/orchestrations/start/calls"
                body = {"input": "in_loop", "instanceId": "i", "tags": {"tenant": "banned"}}
                answer = await http.post(url, json=body)
                assert answer.status_code == 403
                assert answer.json() == {"message": "calls is not for you"}
                assert (await http.get("/runtime/orchestrations/i")).status_code == 404
                assert (await http.post(url, json=body | {"tags": {}})).status_code == 202

    asyncio.run(main())
