"""The HTTP API, over a real server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from shardrt.core import requests as r
from shardrt.core.history import Failure, Status
from shardrt.http.app import build_app
from tests.fake_host import FakeHost
from tests.loops import in_loop

ROOT = "/runtime/orchestrations"


@asynccontextmanager
async def api(**options: Any) -> AsyncIterator[tuple[FakeHost, httpx.AsyncClient]]:
    async with FakeHost.running(**options) as host, httpx.AsyncClient(base_url=host.url) as http:
        yield host, http


@in_loop
async def test_starting_answers_where_to_look() -> None:
    async with api() as (host, http):
        body = {"input": {"a": [1, None]}, "instanceId": "mine", "tags": {"k": "v"}}
        answer = await http.post(f"{ROOT}/start/hello", json=body)
        one = f"{host.url}{ROOT}/mine"
        assert answer.status_code == 202
        assert answer.json() == {
            "instanceId": "mine",
            "managementUrls": {
                "statusQueryGetUri": one,
                "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}",
                "terminatePostUri": f"{one}/terminate",
                "purgeHistoryDeleteUri": one,
            },
        }
        assert answer.headers["location"] == one
        assert answer.headers["retry-after"] == "1"
        request = host.shard.requests[0]
        assert isinstance(request, r.Start)
        assert json.loads(bytes(request.input)) == {"a": [1, None]}
        assert (request.fresh, request.tags) == (False, {"k": "v"})
        again = await http.post(f"{ROOT}/start/hello", json=body)
        assert again.status_code == 409
        assert list(again.json()) == ["message"]


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b'{"input":null}'])
@in_loop
async def test_a_start_needs_no_body(body: bytes) -> None:
    async with api() as (host, http):
        answer = await http.post(f"{ROOT}/start/hello", content=body)
        assert len(answer.json()["instanceId"]) == 32
        assert host.shard.requests[0] == r.Start("hello", fresh=True)


@in_loop
async def test_looking_at_an_instance() -> None:
    async with api() as (host, http):
        await http.post(f"{ROOT}/start/hello", json={"input": 7, "instanceId": "x"})
        found = (await http.get(f"{ROOT}/x")).json()
        assert found == {
            "instanceId": "x",
            "executionId": "e1",
            "name": "hello",
            "version": None,
            "runtimeStatus": "Running",
            "input": 7,
            "output": None,
            "customStatus": None,
            "createdTime": "1970-01-01T00:00:01.000000Z",
            "lastUpdatedTime": "1970-01-01T00:00:01.000000Z",
            "completedTime": None,
            "tags": {},
            "parentInstanceId": None,
            "partition": host.shard.received[0].partition,
        }
        assert (await http.get(f"{ROOT}/x?showInput=false")).json()["input"] is None
        host.shard.end("x", Status.FAILED, failure=Failure(type="E", message="m", details="d"))
        params = {"showHistory": "true"}
        found = (await http.get(f"{ROOT}/x", params=params)).json()
        assert (found["runtimeStatus"], found["output"]) == ("Failed", "E: m")
        assert found["failure"] == {"type": "E", "message": "m", "details": "d"}
        kinds = [event["eventType"] for event in found["historyEvents"]]
        assert kinds[0] == "ExecutionStarted"
        assert "result" not in found["historyEvents"][3]
        params["showHistoryOutput"] = "true"
        found = (await http.get(f"{ROOT}/x", params=params)).json()
        assert found["historyEvents"][3]["result"] == "y"


@in_loop
async def test_steering_an_instance() -> None:
    async with api() as (host, http):
        await http.post(f"{ROOT}/start/hello", json={"instanceId": "x"})
        posts: list[tuple[str, Any, Any]] = [
            ("raiseEvent/go", {"eventData": [1]}, None),
            ("terminate", {"reason": "why", "recursive": False}, r.Terminate("why", False)),
            ("cancel", {"reason": "why"}, r.Cancel("why")),
            ("suspend", {"reason": "why"}, r.Suspend("why")),
            ("resume?reason=query", None, r.Resume("query")),
            ("rewind", {}, r.Rewind()),
            ("restart", None, r.Restart()),
        ]
        for path, body, request in posts:
            answer = await http.post(f"{ROOT}/x/{path}", json=body)
            assert (answer.status_code, answer.json()) == (202, {"instanceId": "x"})
            sent = host.shard.requests[-1]
            if request is not None:
                assert sent == request
        event = host.shard.requests[1]
        assert isinstance(event, r.Raise)
        assert (event.name, bytes(event.data)) == ("go", b"[1]")
        assert (await http.delete(f"{ROOT}/x")).status_code == 409
        host.shard.end("x")
        assert (await http.post(f"{ROOT}/x/raiseEvent/go", json={})).status_code == 410
        assert (await http.post(f"{ROOT}/x/cancel")).status_code == 410
        assert (await http.delete(f"{ROOT}/x")).json() == {"instancesDeleted": 1}
        assert (await http.delete(f"{ROOT}/x")).status_code == 404


@in_loop
async def test_ids_with_any_characters_are_reached_when_quoted() -> None:
    async with api() as (host, http):
        for instance_id in ("a/b c", "é☃", "100%", "a?b#c", "x/raiseEvent/y"):
            body = {"instanceId": instance_id}
            urls = (await http.post(f"{ROOT}/start/hello", json=body)).json()["managementUrls"]
            found = await http.get(urls["statusQueryGetUri"])
            assert found.json()["instanceId"] == instance_id
            event = urls["sendEventPostUri"].replace("{eventName}", "go%20on")
            assert (await http.post(event, json={})).status_code == 202
            assert host.shard.requests[-1] == r.Raise("go on")


@in_loop
async def test_listing_page_by_page() -> None:
    async with api() as (host, http):
        for i in range(5):
            await http.post(f"{ROOT}/start/hello", json={"instanceId": f"i{i}"})
        query: dict[str, Any] = {
            "top": 2,
            "status": ["running", "Failed,Completed"],
            "name": "hello",
            "prefix": "i",
            "createdFrom": "1970-01-01T00:00:00Z",
            "createdTo": "2100-01-01T00:00:00+01:00",
        }
        ids: list[str] = []
        while True:
            page = (await http.get(ROOT, params=query)).json()
            ids += [each["instanceId"] for each in page["instances"]]
            if page["continuationToken"] is None:
                break
            query["continuationToken"] = page["continuationToken"]
        assert ids == [f"i{i}" for i in range(5)]
        where = host.shard.questions[0].where
        assert where.status == ("Running", "Failed", "Completed")
        assert (where.name, where.id_prefix, where.created_from) == ("hello", "i", 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "start/hello", b"{", 400),
        ("POST", "start/hello", b"[]", 400),
        ("POST", "start/hello", b'{"amount":3}', 400),
        ("POST", "i-1/raiseEvent/go", b'{"input":3}', 400),
        ("POST", "start/hello", b'{"instanceId":7}', 400),
        ("POST", "start/hello", b'{"instanceId":""}', 400),
        ("POST", "start/hello", b'{"instanceId":"a\\u0000b"}', 400),
        ("POST", "start/hello", b'{"instanceId":"\\ud800"}', 400),
        ("POST", "start/hello", b'{"input":"\xff"}', 400),
        ("POST", "start/hello", b'{"input":nan}', 400),
        ("POST", "start/hello", b'{"startAt":"soon"}', 400),
        ("POST", "start/hello", b'{"onConflict":"maybe"}', 400),
        ("POST", "start/hello", b'{"input":' + b"[" * 101 + b"]" * 101 + b"}", 400),
        ("POST", "start/hello", b"[" * 100_000, 400),
        ("POST", "start/unknown", b"{}", 404),
        ("POST", "start/", b"{}", 404),
        ("GET", "start/hello", b"", 404),
        ("POST", "start/hello", b'{"input":"' + b"x" * 65536 + b'"}', 413),
        ("POST", "start/hello", b" " * (2 << 20), 413),
        ("GET", "nobody", b"", 404),
        ("GET", "a%00b", b"", 404),
        ("PUT", "nobody", b"", 405),
        ("DELETE", "nobody", b"", 404),
        ("POST", "nobody/raiseEvent/go", b"{}", 404),
        ("POST", "nobody/raiseEvent/go", b"{", 400),
        ("POST", "nobody/terminate", b"", 404),
        ("POST", "nobody/cancel", b"", 404),
        ("POST", "nobody/frobnicate", b"", 405),
        ("GET", "?status=asleep", b"", 400),
        ("GET", "?top=0", b"", 400),
        ("GET", "?top=1001", b"", 400),
        ("GET", "?top=x", b"", 400),
        ("GET", "?createdFrom=yesterday", b"", 400),
    ],
    ids=lambda value: value[:30] if isinstance(value, str | bytes) else None,
)
@in_loop
async def test_what_makes_no_sense(method: str, path: str, body: bytes, status: int) -> None:
    async with api() as (host, http):
        url = f"{ROOT}{path}" if path.startswith("?") else f"{ROOT}/{path}"
        answer = await http.request(method, url, content=body)
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["message"]
        assert answer.headers["content-type"] == "application/json"
        assert not host.shard.instances


@in_loop
async def test_a_body_is_refused_while_it_is_still_arriving() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    async with api() as (_, http):
        with contextlib.suppress(httpx.TransportError):  # it may hang up before we have read
            answer = await http.post(f"{ROOT}/start/hello", content=endless())
            assert answer.status_code == 413
        assert sent < 1 << 30


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [
        ("Overloaded", 429, "3"),
        ("PartitionUnavailable", 503, "1"),
        ("StoreUnavailable", 503, "1"),
        ("InputInvalid", 400, None),
        ("NeverHeardOf", 500, None),
    ],
)
@in_loop
async def test_refusals_of_the_owner(code: str, status: int, retry_after: str | None) -> None:
    async with api(stranded_s_max=0.0) as (host, http):
        host.shard.refuse_next = [r.Refusal(code, "because", 2.5)] * 100
        answer = await http.get(f"{ROOT}/x")
        assert answer.status_code == status
        assert "because" in answer.json()["message"]
        assert answer.headers.get("retry-after") == retry_after


@in_loop
async def test_a_bug_is_no_traceback_for_strangers(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def call(self, instance_id: str, request: object) -> Any:
            raise RuntimeError("secret details")

        async def ask(self, question: object) -> Any:
            raise RuntimeError("secret details")

    transport = httpx.ASGITransport(build_app(Broken()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
        answer = await http.get(f"{ROOT}/x")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret details" in caplog.text


@in_loop
async def test_everything_but_health_needs_the_token() -> None:
    async with api(token="s3cret") as (_, http):
        for path in (ROOT, f"{ROOT}/x", "/openapi.json", "/nowhere"):
            for header in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
                answer = await http.get(path, headers=header)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert list(answer.json()) == ["message"]
        right = {"Authorization": "bearer s3cret"}
        assert (await http.get(ROOT, headers=right)).status_code == 200
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 200


@in_loop
async def test_health_and_the_description() -> None:
    async with api() as (host, http):
        assert (await http.get("/health/live")).json() == {"status": "live"}
        assert (await http.get("/health/ready")).json()["status"] == "ready"
        host.gateway.draining = True
        assert (await http.get("/health/ready")).status_code == 503
        document = (await http.get("/openapi.json")).json()
        assert set(document["paths"][f"{ROOT}/{{instance_id}}"]) == {"get", "delete"}
        assert (await http.get("/nowhere")).json() == {"message": "Not Found"}


@in_loop
async def test_requests_wait_for_a_shard_that_restarts() -> None:
    async with api() as (host, http):
        host.shard.hold = True
        answer = asyncio.ensure_future(http.post(f"{ROOT}/start/hello", json={"input": 1}))
        await host.shard.until(lambda: bool(host.shard.held))
        await host.shard.close()
        await host.shard.until(lambda: not host.shard.links)
        host.shard.hold = False
        await host.shard.listen(host.paths[0])
        assert (await answer).status_code == 202
        first, second = host.shard.received
        assert first.origin == second.origin
        assert second.request == r.Start("hello", host.shard.requests[1].input, fresh=False)
