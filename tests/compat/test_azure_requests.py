"""What the requests of Azure's API become: what is asked of the owner of an instance, exactly."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from shardrt.core import requests as r
from shardrt.core.history import Failure, Status
from shardrt.http.azure_shapes import ROOT
from tests.compat.hosted import azure_http
from tests.fake_host import FakeHost
from tests.loops import in_loop


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("terminate", r.Terminate("so be it")),
        ("suspend", r.Suspend("so be it")),
        ("resume", r.Resume("so be it")),
        ("rewind", r.Rewind("so be it")),
    ],
)
@in_loop
async def test_reasons_are_passed_on(word: str, expected: Any) -> None:
    async with FakeHost.running() as host, httpx.AsyncClient(base_url=host.url + ROOT) as http:
        await http.post("/orchestrators/hello/x")
        if word == "rewind":
            host.shard.end("x", Status.FAILED, failure=Failure(type="E"))
        await http.post(f"/instances/x/{word}?reason=so%20be%20it")
        assert host.shard.requests[-1] == expected


@in_loop
async def test_a_start_is_passed_on() -> None:
    async with FakeHost.running() as host, httpx.AsyncClient(base_url=host.url + ROOT) as http:
        await http.post("/orchestrators/hello/x?version=7", content=b' {"a": 1} ')
        await http.post("/orchestrators/hello")
        named, fresh = host.shard.requests
        assert named == r.Start("hello", named.input, "7", on_conflict="restart")
        assert bytes(named.input).strip() == b'{"a": 1}'
        assert fresh == r.Start("hello", on_conflict="restart", fresh=True)


@in_loop
async def test_waiting_looks_at_times_however_short_they_are_wanted() -> None:
    async with FakeHost.running() as host, httpx.AsyncClient(base_url=host.url + ROOT) as http:
        for poll in ("0", "-1"):
            host.shard.received.clear()
            answer = await http.post(f"/orchestrators/hello?timeout=0.2&pollingInterval={poll}")
            assert answer.status_code == 202
            looks = [each for each in host.shard.requests if isinstance(each, r.Get)]
            assert 2 <= len(looks) <= 6
        for timeout in ("inf", "nan", "soon"):
            host.shard.received.clear()
            answer = await http.post(f"/orchestrators/hello?timeout={timeout}&pollingInterval=1")
            assert (answer.status_code, len(host.shard.requests)) == (202, 1)


@in_loop
async def test_a_restart_keeps_the_version_the_tags_and_ids_with_slashes() -> None:
    async with azure_http() as (runtime, http):
        client = runtime.client
        old = await client.start("versioned", instance_id="a/b", version="1", tags={"k": "v"})
        await old.result()
        other = (await http.post("/instances/a%2Fb/restart")).json()["id"]
        assert await client.handle(other).result() == "1"
        found = await client.get(other)
        assert found is not None
        assert found.tags == {"k": "v"}
        same = await http.post("/instances/a%2Fb/restart?restartWithNewInstanceId=false")
        assert same.json()["id"] == "a/b"
        await client.handle("a/b").result()
        assert (await http.get(same.headers["location"])).json()["instanceId"] == "a/b"


@in_loop
async def test_a_page_is_no_longer_than_the_host_allows() -> None:
    async with FakeHost.running() as host, httpx.AsyncClient(base_url=host.url + ROOT) as http:
        for top, limit in (("7", 7), ("99999999999", 1000), ("0", 100), ("-1", 100)):
            await http.get(f"/instances?top={top}")
            assert host.shard.questions[-1].limit == limit


@in_loop
async def test_ids_that_nobody_can_have_are_not_found() -> None:
    async with azure_http() as (_, http):
        for word in ("", "/terminate", "/suspend", "/resume", "/rewind", "/raiseEvent/go"):
            method = "POST" if word else "GET"
            assert (await http.request(method, f"/instances/a%07b{word}")).status_code == 404
        assert (await http.delete("/instances/a%07b")).status_code == 404
