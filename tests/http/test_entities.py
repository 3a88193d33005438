"""Entities over HTTP, and from the command line, on an embedded runtime."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from click.testing import CliRunner

from shardrt import Runtime, SyncClient
from shardrt.cli import main
from shardrt.http.process import QuietServer, uvicorn_config
from tests.entities.bank import app
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = "/runtime/entities"
SETTINGS = {"shard.checkpoint_interval_s": 0.05}


@asynccontextmanager
async def api() -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with Runtime(app, partitions=4, settings=SETTINGS) as runtime:
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
            yield runtime, http


@in_loop
async def test_an_entity_is_signalled_called_and_looked_at() -> None:
    async with api() as (_, http):
        one = f"{ROOT}/Account/a%2Fb@c"
        assert (await http.get(one)).status_code == 404
        answer = await http.post(f"{one}/add", json={"input": 5})
        assert (answer.status_code, answer.json()) == (202, {"entityId": "@account@a/b@c"})
        answer = await http.post(f"{one}/add", json={"input": 2, "wait": True})
        assert answer.status_code == 200
        assert answer.json() == {"entityId": "@account@a/b@c", "result": 7}
        found = (await http.get(one)).json()
        assert (found["state"], found["name"], found["key"]) == ({"balance": 7}, "account", "a/b@c")
        assert (found["lockedBy"], found["backlog"]) == (None, 0)


@in_loop
async def test_what_fails_says_how() -> None:
    async with api() as (_, http):
        answer = await http.post(f"{ROOT}/account/a/fail_after", json={"input": 1, "wait": True})
        assert answer.status_code == 422
        assert answer.json()["failure"]["message"] == "not 1"
        answer = await http.post(f"{ROOT}/none/a/add", json={})
        assert answer.status_code == 404
        assert (await http.get(f"{ROOT}/a@b/c")).status_code == 404
        late = {"wait": True, "at": "2030-01-01T00:00:00Z"}
        assert (await http.post(f"{ROOT}/account/a/add", json=late)).status_code == 400
        big = {"input": "x" * 5_000_000}
        assert (await http.post(f"{ROOT}/account/a/add", json=big)).status_code == 413


@in_loop
async def test_entities_are_listed_in_pages_and_purged_if_empty() -> None:
    async with api() as (runtime, http):
        for key in ("a1", "a2", "b"):
            await runtime.client.call_entity(f"@account@{key}", "add", 1)
        await runtime.client.call_entity("@account@b", "delete")

        async def keys(**params: Any) -> list[str]:
            answer = (await http.get(ROOT, params=params)).json()
            return sorted(each["key"] for each in answer["entities"])

        async def listed() -> bool:
            return await keys() == ["a1", "a2"]

        await eventually(listed)
        assert await keys(name="ACCOUNT", prefix="a2") == ["a2"]
        assert await keys(name="switch") == []
        page = (await http.get(ROOT, params={"top": 1})).json()
        assert page["continuationToken"]
        assert (await http.get(ROOT, params={"top": 0})).status_code == 400
        assert (await http.delete(f"{ROOT}/account/a1")).status_code == 409
        assert (await http.delete(f"{ROOT}/account/b")).json() == {"entitiesDeleted": 1}
        assert (await http.delete(f"{ROOT}/account/b")).status_code == 404


@in_loop
async def test_the_command_line_and_the_blocking_client_reach_entities() -> None:
    async with Runtime(app, partitions=4, settings=SETTINGS) as runtime:
        server = QuietServer(uvicorn_config(runtime.asgi()))
        listening = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        await asyncio.to_thread(command_line, url)
        await asyncio.to_thread(blocking, url)
        server.should_exit = True
        await serving


def command_line(url: str) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["entity", *arguments], env={"SHARDRT_URL": url})
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    assert "accepted" in run("signal", "@account@a", "add", "--input", "5")
    assert json.loads(run("signal", "@account@a", "add", "--input", "1", "--wait")) == 6
    assert json.loads(run("get", "@account@a", "--json"))["state"] == {"balance": 6}
    shown = ""
    for _ in range(400):
        shown = run("list", "--name", "account", "--limit", "1")
        if "@account@a" in shown:
            break
    assert '{"balance":6}' in shown
    assert json.loads(run("list", "--json"))[0]["entityId"] == "@account@a"
    missing = CliRunner().invoke(main, ["entity", "get", "@account@x"], env={"SHARDRT_URL": url})
    assert missing.exit_code == 1
    assert "no entity '@account@x'" in missing.stderr


def blocking(url: str) -> None:
    with SyncClient.connect(url) as client:
        client.signal_entity("@account@b", "add", 1)
        assert client.call_entity("@account@b", "add", 1, timeout=10) == 2
        found = client.get_entity("@account@b")
        assert found is not None
        assert found.state == {"balance": 2}
        client.call_entity("@account@b", "delete")
        assert client.get_entity("@account@b") is None
        assert [each.key for each in client.list_entities("account")] != []
        purged = 0
        for _ in range(400):
            purged = purged or client.purge_entities("account")
        assert purged == 1
