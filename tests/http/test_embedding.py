"""The HTTP API and the link of an embedded runtime."""

import asyncio
import socket
import sqlite3
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from shardrt import App, OrchestrationContext, Runtime
from shardrt.client import Client
from shardrt.errors import InstanceExists
from shardrt.http.process import QuietServer, uvicorn_config
from shardrt.store.base import ERA
from tests.loops import in_loop
from tests.waiting import eventually

app = App()


@app.orchestrator
async def double(ctx: OrchestrationContext, number: int) -> int:
    return 2 * number


@app.orchestrator
async def doubled_later(ctx: OrchestrationContext) -> int:
    return 2 * await ctx.wait_for_event("number", int)


@in_loop
async def test_the_api_of_a_runtime_works_while_it_runs() -> None:
    runtime = Runtime(app, partitions=4)
    transport = httpx.ASGITransport(runtime.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
        assert (await http.get("/health/ready")).status_code == 503
        start = "/runtime/orchestrations/start/double"
        assert (await http.post(start, json={})).status_code == 503
        async with runtime:
            assert (await http.get("/health/ready")).status_code == 200
            body = {"input": 21, "instanceId": "x"}
            assert (await http.post(start, json=body)).status_code == 202
            await runtime.client.handle("x").result()
            found = (await http.get("/runtime/orchestrations/x")).json()
            assert found["output"] == 42
            assert (await http.post(start, json=body)).status_code == 409
        assert (await http.get("/health/ready")).status_code == 503


@in_loop
async def test_clients_from_outside_reach_it_by_link() -> None:
    runtime = Runtime(app, partitions=4)
    async with runtime:
        server = QuietServer(uvicorn_config(runtime.asgi()))
        listening = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with await Client.connect(url, connect_timeout_s=10) as client:
            handle = await client.start(double, 4, instance_id="x")
            assert await handle.result() == 8
            try:
                await client.start(double, 4, instance_id="x")
            except InstanceExists:
                pass
            else:
                raise AssertionError("the id is taken")
            assert sum((await client.count()).values()) <= 1
            asked = client._session._seq
            assert await client.execute(double, 5) == 10
            later = asyncio.ensure_future(client.execute(doubled_later, instance_id="y"))
            await eventually(lambda: client._session._waits)
            assert client._session._seq == asked + 2, "one request each"
            await runtime.client.raise_event("y", "number", 6)
            assert await later == 12
        server.should_exit = True
        await serving


@in_loop
async def test_a_mounted_api_asks_for_its_tokens_but_for_health() -> None:
    async with Runtime(app, partitions=4, settings={"host.token": "secret"}) as runtime:
        transport = httpx.ASGITransport(Starlette(routes=[Mount("/durable", runtime.asgi())]))
        async with httpx.AsyncClient(transport=transport, base_url="http://host/durable") as http:
            assert (await http.get("/health/ready")).status_code == 200
            assert (await http.get("/metrics")).status_code == 401
            headers = {"Authorization": "Bearer secret"}
            assert (await http.get("/metrics", headers=headers)).status_code == 200


@in_loop
async def test_a_client_that_knows_several_runtimes_goes_to_the_one_that_serves(
    tmp_path: Path,
) -> None:
    options: Any = {"store": f"sqlite:///{tmp_path}/hub.db", "partitions": 4}
    options |= {"listen": "127.0.0.1:0"}
    async with Runtime(app, host_id="a", **options) as one:
        async with Runtime(app, host_id="b", **options) as other:
            urls = [runtime.address for runtime in (one, other)]
            async with await Client.connect(urls) as client:
                lines = client._session._lines
                await eventually(lambda: len({*lines.routes} - {None}) == 2, within_s=20)
                for number in range(20):
                    handle = await client.start(double, number)
                    assert await handle.result() == 2 * number
                links = [runtime.host.announcer._links for runtime in (one, other)]
                assert [len(each) for each in links] == [1, 1]
                with sqlite3.connect(tmp_path / "hub.db") as connection:  # as of another server
                    connection.execute("UPDATE partitions SET epoch = epoch + ?", (2 * ERA,))
                connection.close()
                await eventually(lambda: [each.era for each in lines._all] == [2, 2], within_s=20)
                handle = await client.start(double, 20)
                assert await handle.result() == 40
            await eventually(lambda: [len(each) for each in links] == [0, 0])


@in_loop
async def test_a_runtime_passes_on_what_another_is_to_start_and_end(tmp_path: Path) -> None:
    options: Any = {"store": f"sqlite:///{tmp_path}/hub.db", "partitions": 4}
    options |= {"listen": "127.0.0.1:0", "settings": {"host.lease_ttl_s": 3}}
    async with Runtime(app, host_id="a", **options) as one:
        async with Runtime(app, host_id="b", **options) as other:
            await eventually(other.host.membership.serving, within_s=20)
            async with await Client.connect(one.address) as client:
                for caller, name in ((client, "outside"), (one.client, "inside")):
                    session = caller._session
                    asked = session._seq
                    runs = [caller.execute(double, number) for number in range(20)]
                    assert await asyncio.gather(*runs) == [2 * number for number in range(20)]
                    ids = [f"{name}{number}" for number in range(20)]
                    later = asyncio.gather(
                        *(caller.execute(doubled_later, instance_id=each) for each in ids)
                    )
                    await eventually(lambda session=session: len(session._waits) == 20)
                    assert session._seq == asked + 40, "one request each"
                    assert one.host.router.calls_under_way == 0
                    assert one.host.router.pending, "some are served by the other"
                    for each in ids:
                        await caller.raise_event(each, "number", 1)
                    assert await later == [2] * 20


@in_loop
async def test_a_client_keeps_to_one_hub_whatever_it_is_given() -> None:
    options: Any = {"partitions": 4, "listen": "127.0.0.1:0"}
    async with Runtime(app, **options) as one, Runtime(app, **options) as other:
        async with await Client.connect([one.address, other.address]) as client:
            lines = client._session._lines
            await eventually(lambda: lines._other_hubs == {other.host.hub_id})
            for number in range(20):
                handle = await client.start(double, number)
                assert await handle.result() == 2 * number
                assert await one.client.get(handle.instance_id) is not None
