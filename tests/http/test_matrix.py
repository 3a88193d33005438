"""Every route, asked in every wrong way: what each is answered is in one table.

A route that is not in the table fails the tests.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from shardrt import App, EntityContext, EntityId, OrchestrationContext, Runtime
from shardrt.config.tokens import Tokens
from shardrt.errors import OrchestrationFailed
from shardrt.http.azure import AzureApi
from shardrt.http.token import MISSING, READ_ONLY
from shardrt.links.frames import ENVELOPE_BYTES_MAX
from tests.fake_host import FakeHost
from tests.loops import in_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FULL, LOOK = "full-token", "look-token"
PAYLOAD_BYTES_MAX = 2048
NONSENSE = (b"{", b"[" * 200 + b"]" * 200, b'"\xff"')
LONG = "x" * 300
"""As an id: over the limit, which is a 400. One that is not printable is a 404: none has it."""
RUN, ENT, SCH = "/runtime/orchestrations", "/runtime/entities", "/runtime/schedules"
AZ = "/runtime/webhooks/durabletask"
ONE, SCHEDULE, AZ_ONE = (
    RUN + "/{instance_id}",
    SCH + "/{schedule_id}",
    AZ + "/instances/{instanceId}",
)
SINCE = "createdTimeFrom=2000-01-01T00:00:00Z"
CRON = {"orchestrator": "hello", "cron": "0 0 * * *"}


class Row(NamedTuple):
    """One operation; every status is what the documentation promises."""

    route: str
    good: str
    """A path that makes sense. In it, the instances ``done-…``, ``open-…``, ``failed-…`` exist."""
    status: int
    """What it is answered by a token that may do it."""
    malformed: tuple[str, int]
    """A path with an id, name or condition that makes none, and what that is answered."""
    body: Any = None
    """Of a good request."""
    nonsense: int = 0
    """What a body is answered that is no JSON or too deep; 0: nobody looks at one."""


ROWS = [
    Row(f"POST {RUN}/start/{{name}}", f"{RUN}/start/hello", 202, (f"{RUN}/start/", 404), {}, 400),
    Row(f"GET {RUN}", f"{RUN}?status=Completed&top=5", 200, (f"{RUN}?top=-1", 400)),
    Row(f"DELETE {RUN}", f"{RUN}?prefix=none", 200, (f"{RUN}?tag=x", 400)),
    Row(
        f"POST {ONE}/raiseEvent/{{event}}",
        f"{RUN}/open-a/raiseEvent/go",
        202,
        (f"{RUN}/{LONG}/raiseEvent/go", 400),
        {"eventData": 1},
        400,
    ),
    *(
        Row(
            f"POST {ONE}/{word}",
            f"{RUN}/{there}-{word}/{word}",
            202,
            (f"{RUN}/{LONG}/{word}", 400),
            {"reason": "test"},
            400,
        )
        for word, there in [
            ("terminate", "open"),
            ("cancel", "open"),
            ("suspend", "open"),
            ("resume", "open"),
            ("rewind", "failed"),
            ("restart", "done"),
        ]
    ),
    Row(f"GET {ONE}/why", f"{RUN}/open-b/why", 200, (f"{RUN}/%00/why", 404)),
    Row(f"GET {ONE}", f"{RUN}/failed-b?showHistory=true", 200, (f"{RUN}/%07", 404)),
    Row(f"DELETE {ONE}", f"{RUN}/done-b", 200, (f"{RUN}/{LONG}", 400)),
    Row(f"GET {ENT}", f"{ENT}?name=counter", 200, (f"{ENT}?top=x", 400)),
    Row(
        f"POST {ENT}/{{name}}/{{key}}/{{operation}}",
        f"{ENT}/counter/a/add",
        200,
        (f"{ENT}/a@b/c/add", 404),
        {"input": 1, "wait": True},
        400,
    ),
    Row(f"GET {ENT}/{{name}}/{{key}}", f"{ENT}/counter/there", 200, (f"{ENT}/a@b/c", 404)),
    Row(f"DELETE {ENT}/{{name}}/{{key}}", f"{ENT}/counter/gone", 200, (f"{ENT}/a@b/c", 404)),
    Row("GET /runtime/limits", "/runtime/limits?top=5", 200, ("/runtime/limits?top=x", 400)),
    Row(f"GET {SCH}", f"{SCH}?ended=true", 200, (f"{SCH}?ended=perhaps", 200)),
    *(
        Row(f"{method} {SCHEDULE}", f"{SCH}/{method}", 201, (f"{SCH}/{LONG}", 400), CRON, 400)
        for method in ("PUT", "POST")
    ),
    *(
        Row(f"POST {SCHEDULE}/{word}", f"{SCH}/{word}/{word}", 202, (f"{SCH}/none/{word}", 404))
        for word in ("pause", "resume", "trigger")
    ),
    Row(f"GET {SCHEDULE}", f"{SCH}/pause", 200, (f"{SCH}/none", 404)),
    Row(f"DELETE {SCHEDULE}", f"{SCH}/delete", 200, (f"{SCH}/none", 404)),
    Row("GET /metrics", "/metrics", 200, ("/metrics?x=%ff", 200)),
    Row("GET /openapi.json", "/openapi.json", 200, ("/openapi.json?x=%ff", 200)),
    Row("GET /health", "/health", 200, ("/health?x=%ff", 200)),
    Row("GET /health/details", "/health/details", 200, ("/health/details?x=%ff", 200)),
    Row("GET /health/live", "/health/live", 200, ("/health/live?x=%ff", 200)),
    Row("GET /health/ready", "/health/ready", 200, ("/health/ready?x=%ff", 200)),
    Row(
        f"POST {AZ}/orchestrators/{{functionName}}",
        f"{AZ}/orchestrators/hello",
        202,
        (f"{AZ}/orchestrators/{LONG}", 400),
        {},
        400,
    ),
    Row(
        f"POST {AZ}/orchestrators/{{functionName}}/{{instanceId}}",
        f"{AZ}/orchestrators/hello/mine",
        202,
        (f"{AZ}/orchestrators/hello/a%2Fb", 400),
        {},
        400,
    ),
    Row(f"POST {AZ}/makeprimary", f"{AZ}/makeprimary", 200, (f"{AZ}/makeprimary/x", 404)),
    Row(f"GET {AZ}/instances", f"{AZ}/instances", 200, (f"{AZ}/instances?top=x", 200)),
    Row(
        f"DELETE {AZ}/instances",
        f"{AZ}/instances?{SINCE}&instanceIdPrefix=none",
        404,  # as Azure says that there was none
        (f"{AZ}/instances?createdTimeFrom=x", 400),
    ),
    Row(f"GET {AZ_ONE}", f"{AZ}/instances/done-d", 200, (f"{AZ}/instances/%07", 404)),
    Row(f"DELETE {AZ_ONE}", f"{AZ}/instances/done-e", 200, (f"{AZ}/instances/{LONG}", 400)),
    Row(
        f"POST {AZ_ONE}/raiseEvent/{{eventName}}",
        f"{AZ}/instances/open-c/raiseEvent/go",
        202,
        (f"{AZ}/instances/{LONG}/raiseEvent/go", 400),
        1,
        400,
    ),
    *(
        Row(
            f"POST {AZ_ONE}/{word}",
            f"{AZ}/instances/{there}-az{word}/{word}",
            202,
            (f"{AZ}/instances/{LONG}/{word}", status),
        )
        for word, there, status in [
            ("terminate", "open", 400),
            ("suspend", "open", 400),
            ("resume", "open", 400),
            ("rewind", "failed", 400),
            ("restart", "done", 400),
        ]
    ),
    Row(f"GET {AZ}/entities", f"{AZ}/entities", 200, (f"{AZ}/entities?top=x", 200)),
    Row(
        f"GET {AZ}/entities/{{entityName}}",
        f"{AZ}/entities/counter?fetchState=true",
        200,
        (f"{AZ}/entities/a@b", 200),
    ),
    Row(
        f"GET {AZ}/entities/{{entityName}}/{{entityKey}}",
        f"{AZ}/entities/counter/there",
        200,
        (f"{AZ}/entities/a@b/c", 404),
    ),
    Row(
        f"POST {AZ}/entities/{{entityName}}/{{entityKey}}",
        f"{AZ}/entities/counter/b?op=add",
        202,
        (f"{AZ}/entities/a@b/c", 404),
        1,
        400,
    ),
    Row(
        f"DELETE {AZ}/entities/{{entityName}}/{{entityKey}}",
        f"{AZ}/entities/counter/b",
        202,
        (f"{AZ}/entities/a@b/c", 404),
    ),
]
LINKS = {"/link", "/link/host"}
OPEN = {"/health", "/health/live", "/health/ready"}

app = App()


@app.orchestrator(name="hello")
async def hello(ctx: OrchestrationContext, name: Any) -> Any:
    return name


@app.orchestrator
async def waits(ctx: OrchestrationContext, name: Any) -> Any:
    return await ctx.wait_for_event("never")


@app.orchestrator
async def fails(ctx: OrchestrationContext, name: Any) -> Any:
    raise ValueError(name)


@app.entity(name="counter")
def counter(ctx: EntityContext, number: int | None) -> int:
    if ctx.operation == "delete":
        ctx.delete_state()
        return 0
    total: int = (ctx.get_state(int) or 0) + (number or 0)
    ctx.set_state(total)
    return total


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """A hub with what the table needs, and its HTTP API without a token."""
    (directory / "tokens").write_text(f"{FULL}\nread:{LOOK}\n")
    settings = {
        "host.token_file": str(directory / "tokens"),
        "limits.payload_bytes_max": PAYLOAD_BYTES_MAX,
    }
    async with Runtime(app, partitions=2, settings=settings) as runtime:
        client, orchestrators = runtime.client, {"open": waits, "done": hello, "failed": fails}
        text = " ".join(row.good for row in ROWS)
        for instance_id in set(re.findall(r"\b(?:open|done|failed)-\w+", text)):
            kind = instance_id.partition("-")[0]
            await client.start(orchestrators[kind], "x", instance_id=instance_id)
            if kind != "open":
                with contextlib.suppress(OrchestrationFailed):
                    await client.handle(instance_id).result()
        for key in ("there", "gone"):
            await client.call_entity(EntityId("counter", key), "add", 1)
        await client.call_entity(EntityId("counter", "gone"), "delete")
        for each in ("pause", "resume", "trigger", "delete"):
            await client.schedule(each, "hello", cron="0 0 * * *")
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
            yield runtime, http


def by(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def is_problem(answer: httpx.Response, status: int, message: str) -> bool:
    return answer.status_code == status and answer.json() == {"message": message}


async def in_parts(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body so that its length is not known beforehand."""
    yield body[:1000]
    yield body[1000:]


def is_open(row: Row) -> bool:
    return row.good in OPEN


async def ask(http: httpx.AsyncClient, row: Row, path: str, token: str, **more: Any) -> Any:
    return await http.request(row.route.partition(" ")[0], path, headers=by(token), **more)


@in_loop
async def test_every_route_is_in_the_table(tmp_path: Path) -> None:
    host = FakeHost()
    routes = host.app(host.session).app._app.routes  # below what asks for tokens and joins traces
    links = {route.path for route in routes if isinstance(route, WebSocketRoute)}
    found = {
        f"{method} {route.path_format}"
        for route in routes
        if isinstance(route, Route) and not isinstance(route.endpoint, AzureApi)
        for method in (route.methods or set()) - {"HEAD"}
    }
    [azure] = [r.endpoint for r in routes if isinstance(getattr(r, "endpoint", None), AzureApi)]
    found |= {f"{each.method} {each.path}" for each in azure.operations()}
    assert found == {row.route for row in ROWS}
    assert links == LINKS
    assert all(isinstance(route, (Route, WebSocketRoute)) for route in routes)
    host._directory.cleanup()


@in_loop
async def test_nobody_gets_through_without_a_token_that_allows_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, http):
        wrong: list[tuple[Any, ...]] = []
        for row in ROWS:
            method = row.route.partition(" ")[0]
            for path in (row.good, row.malformed[0]):
                for headers in ({}, by("wrong"), by(""), {"Authorization": f"Basic {FULL}"}):
                    answer = await http.request(method, path, headers=headers, json=row.body)
                    refused = (answer.status_code, answer.text) == (
                        401,
                        f'{{"message":"{MISSING}"}}',
                    )
                    if refused is is_open(row):
                        wrong.append((row.route, path, headers, answer.status_code))
                answer = await ask(http, row, path, LOOK, json=row.body)
                refused = is_problem(answer, 403, READ_ONLY)
                if refused is (method == "GET"):
                    wrong.append((row.route, path, LOOK, answer.status_code))
        assert not wrong, "\n".join(map(str, wrong))


@in_loop
async def test_what_makes_no_sense_is_refused_as_the_table_says(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, http):
        wrong: list[tuple[Any, ...]] = []
        for row in ROWS:
            bodies: list[tuple[str, dict[str, Any], int]] = [
                (row.malformed[0], {"json": row.body}, row.malformed[1])
            ]
            if row.nonsense:
                too_long = b'"' + b"x" * (PAYLOAD_BYTES_MAX + ENVELOPE_BYTES_MAX) + b'"'
                bodies += [
                    (row.good, {"content": each}, 413) for each in (too_long, in_parts(too_long))
                ]
                bodies += [(row.good, {"content": each}, row.nonsense) for each in NONSENSE]
            else:
                bodies += [(row.malformed[0], {"content": b"{" * 10**6}, row.malformed[1])]
            for path, more, status in bodies:
                answer = await ask(http, row, path, FULL, **more)
                if answer.status_code != status or (status >= 400 and not answer.json()):
                    wrong.append((row.route, path[:80], str(more)[:50], status, answer.status_code))
            answer = await http.request("PATCH", row.good, headers=by(FULL))
            if answer.status_code != (404 if row.good.startswith(AZ) else 405):
                wrong.append((row.route, "PATCH", "", 405, answer.status_code))
        assert not wrong, "\n".join(map(str, wrong))


@in_loop
async def test_what_makes_sense_is_answered_as_the_openapi_document_says(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, http):
        document = (await http.get("/openapi.json", headers=by(FULL))).json()
        for row in ROWS:
            answer = await ask(http, row, row.good, FULL, json=row.body)
            assert answer.status_code == row.status, (row.route, answer.text)
            method, _, path = row.route.partition(" ")
            described = document["paths"][path][method.lower()]["responses"][str(row.status)]
            if "content" not in described:
                assert not answer.content, row.route
                continue
            [(media_type, content)] = described["content"].items()
            assert answer.headers["content-type"].partition(";")[0] == media_type
            if media_type == "application/json":
                schema = content["schema"] | {"components": document["components"]}
                Draft202012Validator(schema).validate(answer.json())


@pytest.mark.parametrize("path", sorted(LINKS))
@in_loop
async def test_links_ask_for_a_token_first(tmp_path: Path, path: str) -> None:
    (tmp_path / "tokens").write_text(f"{FULL}\nread:{LOOK}\n")
    tokens = Tokens(path=str(tmp_path / "tokens"))
    expected = {"": 401, "wrong": 401, LOOK: 403, FULL: 421} if path != "/link" else {}
    async with FakeHost.running(tokens=tokens) as host:
        for token, status in (expected or {"": 401, "wrong": 401}).items():
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{host.port}{path}", additional_headers=by(token))
            assert refused.value.response.status_code == status
        async with httpx.AsyncClient(base_url=host.url, headers=by(FULL)) as http:
            assert (await http.get(path)).status_code == 404
