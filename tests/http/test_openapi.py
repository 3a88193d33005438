"""The OpenAPI document: complete, true, and nothing that a generator makes of it is a surprise."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import pytest
from jsonschema import Draft202012Validator

from shardrt import App, OrchestrationContext, Runtime
from shardrt.http.app import build_app
from tests.loops import in_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS = {"get", "put", "post", "delete"}
EXAMPLES_PER_OPERATION = 8

app = App()


@app.orchestrator
async def hello(ctx: OrchestrationContext, name: Any) -> Any:
    return name


@app.orchestrator
async def approve(ctx: OrchestrationContext, name: Any) -> Any:
    return await ctx.wait_for_event("approval")


@app.entity
def counter(ctx: Any) -> None:
    ctx.set_state(ctx.get_state(0) + 1)


class Nobody:
    """Is asked nothing."""

    async def call(self, instance_id: str, request: Any) -> Any:
        raise AssertionError(request)

    async def ask(self, question: Any) -> Any:
        raise AssertionError(question)


async def openapi_of() -> dict[str, Any]:
    transport = httpx.ASGITransport(build_app(Nobody()))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
        document: dict[str, Any] = (await http.get("/openapi.json")).json()
        return document


def described(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@in_loop
async def test_every_operation_is_described_as_generators_need_it() -> None:
    document = await openapi_of()
    names = set()
    for method, path, operation in described(document):
        assert method in METHODS
        names.add(operation["operationId"])
        assert operation["operationId"].isidentifier()
        assert operation["summary"]
        in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert in_path == {part.partition("}")[0] for part in path.split("{")[1:]}
        for status, response in operation["responses"].items():
            assert response["description"]
            assert int(status) < 400 or status in {"404", "500"} or "content" in response
    assert len(names) == sum(1 for _ in described(document))


@in_loop
async def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    document = await openapi_of()
    schemas = document["components"]["schemas"]

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].removeprefix("#/components/schemas/") in schemas
            for key, value in node.items():
                if key == "schema":
                    Draft202012Validator.check_schema(value)
                check(value)
        elif isinstance(node, list):
            for each in node:
                check(each)

    check(document)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


@in_loop
async def test_only_health_is_open_and_azures_callers_have_their_own_ways() -> None:
    document = await openapi_of()
    assert document["security"] == [{"bearer": []}]
    ways = {path: operation.get("security") for _, path, operation in described(document)}
    assert {path for path, way in ways.items() if way == []} == {
        "/health",
        "/health/live",
        "/health/ready",
    }
    azure = {path for path, way in ways.items() if way and {"code": []} in way}
    assert azure == {path for path in ways if "/webhooks/durabletask/" in path}


# -- requests made from the document, at a real server --------------------------------------------


class Serving:
    """A runtime at a port, in a thread of its own."""

    def __init__(self) -> None:
        self._up: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        try:
            runtime = Runtime(app, partitions=4, listen="127.0.0.1:0")
            async with runtime:
                for each in ("one", "two"):
                    await runtime.client.start(hello, each, instance_id=each)
                await runtime.client.start(approve, 1, instance_id="open")
                down = asyncio.Event()
                assert runtime.address is not None
                self._up.set_result((runtime.address, asyncio.get_running_loop(), down))
                await down.wait()
        except BaseException as error:
            if not self._up.done():
                self._up.set_exception(error)
            raise

    def __enter__(self) -> str:
        self._thread.start()
        address, self._loop, self._down = self._up.result(30)
        return address

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Serving() as url:
        yield url


def made_requests(operation: Any, url: str) -> None:
    """Send what can be made from the description of one operation, good and bad."""
    from schemathesis import checks  # noqa: PLC0415 - it need not be installed
    from schemathesis.generation import GenerationMode  # noqa: PLC0415

    wanted = [
        checks.CHECKS.get_one(name)
        for name in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        )
    ]
    for mode in GenerationMode:

        @hypothesis.settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=EXAMPLES_PER_OPERATION,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            case.validate_response(case.call(base_url=url), checks=wanted)

        # Of some, nothing that is wrong can be made.
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            send()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_request_is_answered_in_a_way_that_is_not_described(server: str) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    document = asyncio.run(openapi_of())
    problems: list[BaseException] = []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        try:
            made_requests(result.ok(), server)
        except BaseExceptionGroup as found:
            problems += found.exceptions
    assert not problems, "\n\n".join(map(str, problems))
