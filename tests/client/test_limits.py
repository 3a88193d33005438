"""Limits as clients and HTTP see them, of an app that uses several."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx

from shardrt import App, Limit, OrchestrationContext, Runtime, SyncClient
from shardrt.host.quarantine import limit_snapshot_of_row
from shardrt.store.base import InstanceRow
from tests.loops import in_loop
from tests.serving import cli
from tests.waiting import eventually

app = App()
opened = asyncio.Event()


@app.activity(limit=Limit("door", concurrency=2), limit_key=lambda name: name[0])
async def enter(name: str) -> str:
    await opened.wait()
    return name


@app.activity(limit=Limit("door-bell", rate=1, per=3600))
async def ring(name: str) -> str:
    return name


@app.orchestrator
async def visit(ctx: OrchestrationContext, names: list[str]) -> int:
    return len(await asyncio.gather(*(ctx.call_activity(enter, name) for name in names)))


@app.orchestrator
async def annoy(ctx: OrchestrationContext) -> None:
    await asyncio.gather(*(ctx.call_activity(ring, str(n)) for n in range(3)))


@in_loop
async def test_limits_are_shown_with_their_queues() -> None:
    opened.clear()
    settings = {"shard.checkpoint_interval_s": 0.05}
    async with Runtime(app, partitions=4, settings=settings, listen="127.0.0.1:0") as runtime:
        client = runtime.client
        visiting = await client.start(visit, ["a1", "a2", "a3", "b1"])
        await client.start(annoy)

        async def shown(*wanted: tuple[str, str | None, int, int]) -> bool:
            found = sorted(
                (each.name, each.key, each.holders, each.waiting) for each in await client.limits()
            )
            return found == list(wanted)

        await eventually(
            lambda: shown(("door", "a", 2, 1), ("door", "b", 1, 0), ("door-bell", None, 0, 2))
        )
        [a, b] = sorted(await client.limits("door"), key=lambda each: str(each.key))
        assert (a.limiter_id, a.concurrency, a.rate, a.per) == ("@$limit@door/a", 2, None, None)
        assert a.waiting_since is not None
        assert (b.waiting_since, a.next_at, a.reason) == (None, None, "")
        [bell] = await client.limits("door-bell")
        assert (bell.concurrency, bell.rate, bell.per) == (None, 1, timedelta(hours=1))
        assert bell.next_at is not None
        assert bell.waiting_since is not None
        assert bell.next_at - bell.waiting_since > timedelta(minutes=59)

        async with httpx.AsyncClient(base_url=runtime.address) as http:
            page = (await http.get("/runtime/limits", params={"name": "door-bell"})).json()
            assert page["continuationToken"] is None
            [shape] = page["limits"]
            assert (shape["limiterId"], shape["per"]) == ("@$limit@door-bell", 3600.0)
            assert (shape["holders"], shape["waiting"]) == (0, 2)
            first = (await http.get("/runtime/limits?top=2")).json()
            rest = {"continuationToken": first["continuationToken"]}
            second = (await http.get("/runtime/limits", params=rest)).json()
            assert len(first["limits"]) == 2
            assert len(second["limits"]) == 1

        done = await asyncio.to_thread(cli, "limits", "--name", "door", SHARDRT_URL=runtime.address)
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        assert sorted(line[:7] for line in lines[1:]) == [
            ["door", "a", "2", "at", "a", "time", "2"],
            ["door", "b", "2", "at", "a", "time", "1"],
        ]

        def blocking() -> list[Any]:
            with SyncClient.connect(runtime.address) as sync:
                return sync.limits("door-bell")

        assert [each.waiting for each in await asyncio.to_thread(blocking)] == [2]
        opened.set()
        assert await visiting.result() == 4
        assert sum((await client.count()).values()) == 2, "limiters are no instances"


def test_a_limiter_that_cannot_be_read_says_so() -> None:
    row = InstanceRow(
        "@$limit@api", "", "$limit", None, "Limit", 1, 1, None, None, None, None, False, b"{"
    )
    found = limit_snapshot_of_row(row, 3)
    assert (found.limiter_id, found.partition, found.holders) == ("@$limit@api", 3, 0)
    assert found.reason.startswith("quarantined: its stored state")
