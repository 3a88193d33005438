"""Who may do what by which token, over HTTP and over links, while tokens change."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from shardrt import App, Runtime
from shardrt.client import Client
from shardrt.config import Tokens
from shardrt.config.tokens import LOOK_S
from shardrt.core import requests as r
from shardrt.errors import Forbidden, Unauthorized
from shardrt.http.token import READ_ONLY, is_read
from shardrt.links.peer import peer_url, target_of
from tests.fake_host import FakeHost
from tests.loops import in_loop

START = "/runtime/orchestrations/start/hello"
AZURE = "/runtime/webhooks/durabletask"
EXAMPLES: dict[type, r.Request] = {
    r.Start: r.Start("hello"),
    r.Raise: r.Raise("event"),
    r.SignalEntity: r.SignalEntity("add"),
    r.CallEntity: r.CallEntity("add"),
    r.GetSlot: r.GetSlot("slot"),
}
READS = {r.Get, r.GetHistory, r.Export, r.Wait, r.GetEntity, r.Explain, r.GetSlot}


class Rotating:
    """A token file, and a clock by which it is looked at."""

    def __init__(self, directory: Path, text: str) -> None:
        self._path = directory / "tokens"
        self._path.write_text(text)
        self._now_s = 0.0
        self.tokens = Tokens(path=str(self._path), monotonic_s=lambda: self._now_s)

    def write(self, text: str) -> None:
        self._path.write_text(text)
        self._now_s += LOOK_S


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@in_loop
async def test_a_token_that_may_only_read_changes_nothing(tmp_path: Path) -> None:
    tokens = Rotating(tmp_path, "full\nread:look\n").tokens
    async with FakeHost.running(tokens=tokens) as host:
        async with httpx.AsyncClient(base_url=host.url, headers=bearer("look")) as http:
            refused = await http.post(START, json={})
            assert (refused.status_code, refused.json()) == (403, {"message": READ_ONLY})
            assert (await http.delete("/runtime/orchestrations/a")).status_code == 403
            assert (await http.get("/runtime/orchestrations/a")).status_code == 404
            assert (await http.head("/openapi.json")).status_code == 200
            assert {type(each) for each in host.shard.requests} == {r.Get}
        async with httpx.AsyncClient(base_url=host.url, headers=bearer("full")) as http:
            assert (await http.post(START, json={})).status_code == 202


@pytest.mark.parametrize(
    "give", [lambda t: {"params": {"code": t}}, lambda t: {"headers": {"x-functions-key": t}}]
)
@in_loop
async def test_azures_keys_are_of_two_kinds_too(
    tmp_path: Path, give: Callable[[str], dict[str, Any]]
) -> None:
    tokens = Rotating(tmp_path, "full\nread:look\n").tokens
    async with FakeHost.running(tokens=tokens) as host:
        async with httpx.AsyncClient(base_url=host.url + AZURE) as http:
            statuses = {
                token: [
                    (await http.post("/orchestrators/hello", **give(token))).status_code,
                    (await http.get("/instances/none", **give(token))).status_code,
                ]
                for token in ("full", "look", "wrong", "")
            }
            elsewhere = await http.get(host.url + "/openapi.json", **give("full"))
    assert statuses == {"full": [202, 404], "look": [403, 404], "wrong": [401, 401], "": [401, 401]}
    assert elsewhere.status_code == 401


def test_every_request_is_known_to_read_or_to_change() -> None:
    for kind in r.Request.__args__:
        request = EXAMPLES.get(kind) or kind()
        assert is_read(msgspec.Raw(msgspec.json.encode(request))) is (kind in READS), kind
    for nonsense in (b"7", b"[]", b'["nope"]', b'["get"', b'["get",', b'{"get":1}'):
        assert not is_read(msgspec.Raw(nonsense))


@in_loop
async def test_a_link_by_a_token_that_may_only_read(tmp_path: Path) -> None:
    tokens = Rotating(tmp_path, "full\nread:look\n").tokens
    async with FakeHost.running(tokens=tokens) as host:
        async with await Client.connect(host.url, token="full") as client:
            await client.start("hello", instance_id="a")
        before = len(host.shard.requests)
        async with await Client.connect(host.url, token="look") as client:
            found = await client.get("a")
            assert found is not None
            waiting = asyncio.ensure_future(client.handle("a").result())
            await host.shard.until(lambda: "a" in host.shard.waits)
            for change in (
                client.start("hello"),
                client.raise_event("a", "go"),
                client.terminate("a"),
                client.cancel("a"),
                client.purge("a"),
            ):
                with pytest.raises(Forbidden, match=READ_ONLY):
                    await change
            host.shard.end("a", output=b"7")
            assert await waiting == 7
        assert {type(each) for each in host.shard.requests[before:]} <= {r.Get, r.Wait}


@in_loop
async def test_a_host_needs_more_than_a_token_that_may_only_read(tmp_path: Path) -> None:
    tokens = Rotating(tmp_path, "full\nread:look\n").tokens
    async with FakeHost.running(tokens=tokens, owner="one/1") as host:
        url = peer_url(target_of(host.url, "one/1"))
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=bearer("look"))
        assert refused.value.response.status_code == 403
        async with connect(url, additional_headers=bearer("full")):
            pass


@in_loop
async def test_tokens_change_while_clients_are_there(tmp_path: Path) -> None:
    rotating = Rotating(tmp_path, "old\n")
    async with FakeHost.running(tokens=rotating.tokens) as host:
        async with await Client.connect(host.url, token="old", call_timeout_s=2) as client:
            await client.start("hello", instance_id="before")
            rotating.write("new\nold\n")
            await client.start("hello", instance_id="both")
            links = len(host.shard.links)
            async with await Client.connect(host.url, token="new") as newer:
                await newer.start("hello", instance_id="new")
                rotating.write("new\n")
                with pytest.raises(Unauthorized):
                    await client.start("hello", instance_id="after")
                await newer.start("hello", instance_id="still")
            assert len(host.shard.links) == links
        with pytest.raises(Unauthorized):
            await Client.connect(host.url, token="old")
    assert set(host.shard.instances) == {"before", "both", "new", "still"}


@in_loop
async def test_who_may_no_longer_change_things_is_let_go(tmp_path: Path) -> None:
    rotating = Rotating(tmp_path, "full\nless\n")
    async with FakeHost.running(tokens=rotating.tokens) as host:
        link = connect(f"ws://127.0.0.1:{host.port}/link", additional_headers=bearer("less"))
        async with link as connection:
            await connection.send(b'[["hello","session"]]')
            await connection.recv()
            rotating.write("full\nread:less\n")
            await connection.send(b'[["call",1,1,"a",["start","hello"]]]')
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
    assert not host.shard.requests


@in_loop
async def test_pages_of_other_origins_may_ask_if_they_are_named() -> None:
    preflight = {"Origin": "https://ours", "Access-Control-Request-Method": "POST"}
    for origins, allowed in (("", None), ("https://a, https://ours", "https://ours")):
        settings = {"host.cors_origins": origins, "host.token": "secret"}
        runtime = Runtime(App(), settings=settings)
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
            asked = await http.options(START, headers=preflight)
            assert asked.headers.get("access-control-allow-origin") == allowed
            assert asked.status_code == (200 if allowed else 401)
            other = await http.options(START, headers=preflight | {"Origin": "https://theirs"})
            assert "access-control-allow-origin" not in other.headers
            # It is about browsers; a token is asked for as ever.
            assert (await http.post(START, headers={"Origin": "https://ours"})).status_code == 401
