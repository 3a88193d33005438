"""The HTTP API of Azure Durable Functions, route by route."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.compat.hosted import azure_http, refuse_next
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from shardrt import Runtime

SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
BASE = "http://host/runtime/webhooks/durabletask"


async def started(http: httpx.AsyncClient, name: str, instance_id: str, body: Any = None) -> None:
    answer = await http.post(f"/orchestrators/{name}/{instance_id}", json=body)
    assert answer.status_code == 202, answer.text


@in_loop
async def test_a_start_answers_where_to_look() -> None:
    async with azure_http() as (runtime, http):
        query = "taskHub=H&connection=Storage&code=K"
        answer = await http.post(f"/orchestrators/hello/one?{query}", json="ada")
        assert answer.status_code == 202
        one = f"{BASE}/instances/one"
        assert answer.json() == {
            "id": "one",
            "statusQueryGetUri": f"{one}?{query}",
            "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}?{query}",
            "terminatePostUri": f"{one}/terminate?reason={{text}}&{query}",
            "purgeHistoryDeleteUri": f"{one}?{query}",
            "restartPostUri": f"{one}/restart?{query}",
            "suspendPostUri": f"{one}/suspend?reason={{text}}&{query}",
            "resumePostUri": f"{one}/resume?reason={{text}}&{query}",
        }
        assert answer.headers["location"] == f"{one}?{query}"
        assert answer.headers["retry-after"] == "10"
        assert await runtime.client.handle("one").result() == "ADA"

        unnamed = await http.post("/ORCHESTRATORS/hello")
        assert (unnamed.status_code, len(unnamed.json()["id"])) == (202, 32)
        assert unnamed.json()["terminatePostUri"].endswith("/terminate?reason={text}")
        assert await runtime.client.handle(unnamed.json()["id"]).result() is None


@pytest.mark.parametrize(
    ("path", "body", "message", "kind"),
    [
        ("hello", b"{", "Invalid JSON content", "BadRequest"),
        ("hello", b"[" * 101 + b"]" * 101, "Invalid JSON content", "BadRequest"),
        ("nobody", b"1", "One or more of the arguments submitted is incorrect", "Orchestrator"),
        ("hello/%40x", b"1", "One or more of the arguments submitted is incorrect", "Input"),
        ("hello/a%2Fb", b"1", "One or more of the arguments submitted is incorrect", "Input"),
        ("hello/a%5Cb", b"1", "One or more of the arguments submitted is incorrect", "Input"),
        ("hello/a%3Fb", b"1", "One or more of the arguments submitted is incorrect", "Input"),
        ("hello/a%23b", b"1", "One or more of the arguments submitted is incorrect", "Input"),
        ("hello/a%07b", b"1", "One or more of the arguments submitted is incorrect", "Input"),
        ("hello/" + "x" * 300, b"1", "One or more of the arguments submitted is", "Input"),
    ],
)
@in_loop
async def test_a_wrong_start_is_told_in_azures_words(
    path: str, body: bytes, message: str, kind: str
) -> None:
    async with azure_http() as (_, http):
        answer = await http.post(f"/orchestrators/{path}", content=body)
        assert answer.status_code == 400
        shape = answer.json()
        assert shape["Message"].startswith(message)
        assert shape["ExceptionType"].startswith(kind)
        assert shape["ExceptionMessage"]
        assert shape["StackTrace"] == ""


@in_loop
async def test_a_start_can_wait_for_the_end() -> None:
    async with azure_http() as (_, http):
        wait = "timeout=10&pollingInterval=0.05"
        answer = await http.post(f"/orchestrators/hello?{wait}", json="ada")
        assert (answer.status_code, answer.json()) == (200, "ADA")
        refuse_next(1)
        answer = await http.post(f"/orchestrators/fragile?{wait}", json="no")
        assert (answer.status_code, answer.json()["runtimeStatus"]) == (200, "Failed")
        refuse_next(1)
        told = f"{wait}&returnInternalServerErrorOnFailure=true"
        answer = await http.post(f"/orchestrators/fragile?{told}", json="no")
        assert (answer.status_code, answer.json()["runtimeStatus"]) == (500, "Failed")
        for short in ("timeout=0.1&pollingInterval=0.05", "timeout=5", "pollingInterval=1"):
            answer = await http.post(f"/orchestrators/wait?{short}")
            assert (answer.status_code, answer.headers["retry-after"]) == (202, "10")


@in_loop
async def test_a_start_can_ask_for_a_version() -> None:
    async with azure_http() as (_, http):
        wait = "timeout=10&pollingInterval=0.05"
        for query, version in (("", "2"), ("&version=1", "1")):
            answer = await http.post(f"/orchestrators/versioned?{wait}{query}")
            assert (answer.status_code, answer.json()) == (200, version)
        answer = await http.post("/orchestrators/versioned?version=3")
        assert (answer.status_code, answer.json()["ExceptionType"]) == (
            400,
            "OrchestratorNotRegistered",
        )


@in_loop
async def test_an_id_is_taken_again_once_its_instance_has_ended() -> None:
    async with azure_http() as (runtime, http):
        await started(http, "wait", "x")
        assert (await http.post("/orchestrators/hello/x", json="b")).status_code == 409
        await http.post("/instances/x/terminate?reason=enough")
        await started(http, "hello", "x", "b")
        assert await runtime.client.handle("x").result() == "B"


@in_loop
async def test_the_status_says_by_its_code_whether_it_is_final() -> None:
    async with azure_http() as (runtime, http):
        assert (await http.get("/instances/x")).status_code == 404
        await started(http, "wait", "x", {"a": 1})
        await eventually(lambda: _custom_status(http, "x"))
        for state in ("Running", "Suspended"):
            answer = await http.get("/Instances/x?code=K")
            assert answer.status_code == 202
            assert answer.headers["location"] == f"{BASE}/Instances/x?code=K"
            assert answer.headers["retry-after"] == "5"
            found = answer.json()
            assert SECOND.fullmatch(found.pop("createdTime"))
            assert SECOND.fullmatch(found.pop("lastUpdatedTime"))
            assert found == {
                "name": "wait",
                "instanceId": "x",
                "runtimeStatus": state,
                "input": {"a": 1},
                "customStatus": {"waits": True},
                "output": None,
            }
            suspended = await http.post("/instances/x/suspend?reason=tea")
            assert (suspended.status_code, suspended.content) == (202, b"")
        assert (await http.get("/instances/x?showInput=False")).json()["input"] is None
        assert (await http.get("/instances/x?showInput=maybe")).json()["input"] == {"a": 1}
        assert (await http.post("/instances/x/RESUME")).status_code == 202
        await http.post("/instances/x/raiseEvent/go", json=[7])
        await runtime.client.handle("x").result()
        answer = await http.get("/instances/x?returnInternalServerErrorOnFailure=true")
        assert (answer.status_code, answer.json()["output"]) == (200, [7])
        assert "location" not in answer.headers


async def _custom_status(http: httpx.AsyncClient, instance_id: str) -> Any:
    return (await http.get(f"/instances/{instance_id}")).json()["customStatus"]


@in_loop
async def test_a_failed_and_a_terminated_instance() -> None:
    async with azure_http() as (runtime, http):
        refuse_next(1)
        await started(http, "fragile", "f", "no")
        await runtime.client.wait_for_end("f")
        answer = await http.get("/instances/f")
        assert (answer.status_code, answer.json()["runtimeStatus"]) == (200, "Failed")
        assert "ValueError: no" in answer.json()["output"]
        told = await http.get("/instances/f?returnInternalServerErrorOnFailure=True")
        assert (told.status_code, told.json()) == (500, answer.json())
        rewound = await http.post("/instances/f/rewind?reason=again")
        assert (rewound.status_code, rewound.content) == (202, b"")
        assert await runtime.client.handle("f").result() == "taken: no"

        await started(http, "wait", "t")
        assert (await http.post("/instances/t/terminate?reason=so%20be%20it")).status_code == 202
        answer = await http.get("/instances/t?returnInternalServerErrorOnFailure=true")
        assert answer.status_code == 200
        assert answer.json()["runtimeStatus"] == "Terminated"
        assert answer.json()["output"] == "so be it"


@in_loop
async def test_history_as_azure_projects_it() -> None:
    async with azure_http() as (runtime, http):
        await started(http, "hello", "x", "ada")
        await runtime.client.handle("x").result()
        assert "historyEvents" not in (await http.get("/instances/x")).json()

        async def events(query: str) -> list[dict[str, Any]]:
            found = (await http.get(f"/instances/x?showHistory=True{query}")).json()
            for event in found["historyEvents"]:
                assert event.pop("Timestamp")
                event.pop("ScheduledTime", None)
            return found["historyEvents"]  # type: ignore[no-any-return]

        assert await events("&showHistoryOutput=True") == [
            {"EventType": "ExecutionStarted", "FunctionName": "hello", "Input": "ada"},
            {
                "EventType": "TaskCompleted",
                "FunctionName": "shout",
                "Input": "ada",
                "Result": "ADA",
            },
            {
                "EventType": "ExecutionCompleted",
                "OrchestrationStatus": "Completed",
                "Result": "ADA",
            },
        ]
        assert await events("&showInput=false") == [
            {"EventType": "ExecutionStarted", "FunctionName": "hello"},
            {"EventType": "TaskCompleted", "FunctionName": "shout"},
            {"EventType": "ExecutionCompleted", "OrchestrationStatus": "Completed"},
        ]


@in_loop
async def test_an_event_is_refused_in_azures_order() -> None:
    async with azure_http() as (runtime, http):
        wrong: dict[str, Any] = {"content": b"{", "headers": {"content-type": "text/plain"}}
        event = "/instances/x/raiseEvent/go"
        assert (await http.post(event, **wrong)).status_code == 404
        await started(http, "wait", "x")
        answer = await http.post(event, **wrong)
        assert (answer.status_code, "application/json" in answer.text) == (400, True)
        wrong["headers"] = {"content-type": "Application/JSON; charset=utf-8"}
        answer = await http.post(event, **wrong)
        assert (answer.status_code, "malformed" in answer.text) == (400, True)
        answer = await http.post(f"{event}?taskHub=H&connection=S", json="5")
        assert (answer.status_code, answer.content) == (202, b"")
        assert await runtime.client.handle("x").result() == "5"
        assert (await http.post(event, **wrong)).status_code == 410


@in_loop
async def test_what_has_ended_cannot_be_steered() -> None:
    async with azure_http() as (_, http):
        for word in ("terminate", "suspend", "resume", "rewind"):
            assert (await http.post(f"/instances/x/{word}")).status_code == 404
        await started(http, "wait", "x")
        assert (await http.post("/instances/x/rewind")).status_code == 400
        await http.post("/instances/x/terminate")
        for word in ("terminate", "suspend", "resume", "rewind"):
            assert (await http.post(f"/instances/x/{word}?reason=r")).status_code == 410


@in_loop
async def test_restarting_makes_another_instance_unless_told_otherwise() -> None:
    async with azure_http() as (runtime, http):
        unknown = await http.post("/instances/x/restart")
        assert unknown.status_code == 400
        assert "does not match a valid orchestration instance" in unknown.json()["Message"]
        await started(http, "hello", "x", "ada")
        await runtime.client.handle("x").result()
        answer = await http.post("/instances/x/restart?timeout=10&pollingInterval=0.05")
        assert (answer.status_code, answer.json()) == (200, "ADA")
        answer = await http.post("/instances/x/restart")
        other = answer.json()["id"]
        assert (answer.status_code, other == "x") == (202, False)
        assert await runtime.client.handle(other).result() == "ADA"
        same = await http.post("/instances/x/restart?restartWithNewInstanceId=False")
        assert (same.status_code, same.json()["id"]) == (202, "x")
        await started(http, "wait", "w")
        same = await http.post("/instances/w/restart?restartWithNewInstanceId=false")
        assert same.status_code == 409


@asynccontextmanager
async def four_instances() -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """Three that have ended, one that waits, and the read model knows of them."""
    async with azure_http() as (runtime, http):
        await started(http, "wait", "w")
        for each in ("a1", "a2", "b1"):
            await started(http, "hello", each, each)
            await runtime.client.handle(each).result()
        await eventually(lambda: _is(ids(http, "?runtimeStatus=completed"), ["a1", "a2", "b1"]))
        await eventually(lambda: _is(ids(http, "?runtimeStatus=running"), ["w"]))
        yield runtime, http


async def ids(http: httpx.AsyncClient, query: str = "") -> list[str]:
    return sorted(each["instanceId"] for each in (await http.get(f"/instances{query}")).json())


EVER = "createdTimeFrom=2000-01-01T00:00:00.5Z&createdTimeTo=2999-01-01T00:00:00Z"


LISTED = {
    "": "a1 a2 b1 w",
    "/": "a1 a2 b1 w",
    "?runtimeStatus=Completed,Failed&runtimeStatus=Running": "a1 a2 b1 w",
    "?runtimeStatus=Running": "w",
    "?runtimeStatus=ContinuedAsNew": "",
    "?runtimeStatus=Nonsense&top=x&createdTimeFrom=soon": "a1 a2 b1 w",
    "?instanceIdPrefix=a": "a1 a2",
    "?createdTimeFrom=2999-01-01T00:00:00Z": "",
    "?createdTimeTo=2000-01-01T00:00:00Z": "",
    f"?{EVER}&instanceIdPrefix=b&taskHub=H&connection=S": "b1",
}


@in_loop
async def test_listing_by_conditions() -> None:
    async with four_instances() as (_, http):
        found = {query: " ".join(await ids(http, query)) for query in LISTED}
        assert found == LISTED


@in_loop
async def test_listing_page_by_page() -> None:
    async with four_instances() as (runtime, http):
        found = await runtime.client.get("b1")
        assert found is not None
        created = found.created_at.isoformat().replace("+00:00", "Z")
        assert await ids(http, f"?createdTimeFrom={created}&createdTimeTo={created}") == ["b1"]
        shown = (await http.get("/instances?instanceIdPrefix=b")).json()[0]
        hidden = (await http.get("/instances?instanceIdPrefix=b&showInput=false")).json()[0]
        assert (shown["input"], hidden["input"]) == ("b1", None)
        seen: list[str] = []
        token = ""
        for size in (3, 1):
            page = await http.get("/instances?top=3", headers={"x-ms-continuation-token": token})
            token = page.headers["x-ms-continuation-token"]
            assert len(page.json()) == size
            seen += [each["instanceId"] for each in page.json()]
        assert (sorted(seen), token) == (["a1", "a2", "b1", "w"], "")


@in_loop
async def test_purging_by_conditions() -> None:
    async with four_instances() as (_, http):
        refused = await http.delete("/instances")
        assert (refused.status_code, type(refused.json())) == (400, str)
        since = "createdTimeFrom=2000-01-01"
        for query, status in [
            (f"{since}&runtimeStatus=Nonsense", 400),
            (f"{since}&createdTimeTo=soon", 400),
            ("createdTimeFrom=x", 400),
            ("createdTimeFrom=2999-01-01", 404),
            ("createdTimeFrom=1999-01-01&createdTimeTo=2000-01-01", 404),
            (f"{since}&runtimeStatus=Failed", 404),
            (f"{since}&runtimeStatus=Running", 404),
        ]:
            assert (await http.delete(f"/instances?{query}")).status_code == status, query
        some = await http.delete(f"/instances?{since}&instanceIdPrefix=a")
        assert (some.status_code, some.json()) == (200, {"instancesDeleted": 2})
        assert (await http.delete("/instances/b1")).json() == {"instancesDeleted": 1}
        assert (await http.delete("/instances/b1")).status_code == 404
        assert (await http.delete("/instances/w")).status_code == 409


@in_loop
async def test_entities() -> None:
    async with azure_http() as (_, http):
        one = "/entities/Counter/a%2Fb"

        async def state(path: str) -> tuple[int, Any]:
            answer = await http.get(path)
            return answer.status_code, answer.json()

        assert (await state(one))[0] == 404
        assert (await http.post(one)).status_code == 400
        signal = await http.post(f"{one}?op=add", json=5)
        assert (signal.status_code, signal.content) == (202, b"")
        assert (await http.post(f"{one}?op=add", content=b"7")).status_code == 202
        assert (await http.post(f"{one}?op=add")).status_code == 202
        await eventually(lambda: _is(state(one), (200, 13)))
        wrong = {"content": b"{", "headers": {"content-type": "application/json"}}
        assert (await http.post(f"{one}?op=add", **wrong)).status_code == 400  # type: ignore[arg-type]
        assert (await http.post("/entities/nobody/k?op=add")).status_code == 404
        await http.post("/entities/counter/$?op=add")
        await eventually(lambda: _is(state("/entities/counter/$"), (200, 1)))

        async def keys(query: str = "") -> list[str]:
            return sorted(e["entityId"]["key"] for e in (await http.get(query)).json())

        await eventually(lambda: _is(keys("/entities"), ["", "a/b"]))
        assert await keys("/entities/counter?lastOperationTimeFrom=2999-01-01T00:00:00Z") == []
        assert await keys("/entities/counter?lastOperationTimeTo=2000-01-01T00:00:00Z") == []
        assert await keys("/entities/other") == []
        page = await http.get("/entities/counter?top=1&fetchState=true")
        assert len(page.json()) == 1
        assert set(page.json()[0]) == {"entityId", "lastOperationTime", "state"}
        more = {"x-ms-continuation-token": page.headers["x-ms-continuation-token"]}
        rest = await http.get("/entities/counter?top=5", headers=more)
        assert len(rest.json()) == 1
        assert set(rest.json()[0]) == {"entityId", "lastOperationTime"}
        assert rest.headers["x-ms-continuation-token"] == ""
        assert (await http.delete(one)).status_code == 202
        await eventually(lambda: _is_status(state(one), 404))
        await eventually(lambda: _is(keys("/entities"), [""]))
        for body, kept in ((b"", [None]), (b"five", ["five"]), (b"5", ["5"])):
            await http.post("/entities/counter/k?op=keep", content=body)
            await eventually(lambda kept=kept: _is(state("/entities/counter/k"), (200, kept)))


async def _is(found: Any, expected: Any) -> bool:
    return bool(await found == expected)


async def _is_status(found: Any, expected: int) -> bool:
    return bool((await found)[0] == expected)


@in_loop
async def test_other_routes_and_methods_do_not_exist() -> None:
    async with azure_http() as (_, http):
        assert (await http.post("/makePrimary/")).status_code == 200
        await started(http, "wait", "x")
        for method, path in [
            ("GET", "/orchestrators/hello"),
            ("PUT", "/instances/x"),
            ("POST", "/instances/x/dance"),
            ("POST", "/instances/x/raiseEvent"),
            ("POST", "/instances/x/terminate/now"),
            ("POST", "/instances"),
            ("PUT", "/entities/counter/a"),
            ("GET", "/makeprimary"),
            ("GET", "/"),
        ]:
            answer = await http.request(method, path)
            assert (answer.status_code, list(answer.json())) == (404, ["message"]), path


@in_loop
async def test_a_payload_that_is_too_long_is_refused() -> None:
    async with azure_http(**{"limits.payload_bytes_max": 70_000}) as (_, http):
        await started(http, "wait", "x")
        long = "x" * 70_001
        for path in ("orchestrators/hello", "instances/x/raiseEvent/go", "entities/counter/a?op=b"):
            assert (await http.post(f"/{path}", json=long)).status_code == 413


@in_loop
async def test_the_token_is_taken_as_azures_key(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("secret+1")
    token_file.chmod(0o600)
    async with azure_http(**{"host.token_file": str(token_file)}) as (_, http):
        for query, headers, status in [
            ("", {}, 401),
            ("?code=wrong", {}, 401),
            ("?code=secret%2B1", {}, 404),
            ("", {"x-functions-key": "secret+1"}, 404),
            ("", {"x-functions-key": "secret"}, 401),
            ("", {"authorization": "Bearer secret+1"}, 404),
        ]:
            answer = await http.get(f"/instances/x{query}", headers=headers)
            assert answer.status_code == status, (query, headers)
        native = "http://host/runtime/orchestrations?code=secret%2B1"
        assert (await http.get(native)).status_code == 401
