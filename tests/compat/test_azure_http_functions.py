"""HTTP-triggered functions of an Azure app, and such an app at a real host."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardrt import Runtime
from shardrt.compat.azure import from_azure, functions_app
from shardrt.compat.azure.http_functions import paths_of
from shardrt.config import Tokens
from tests.compat.apps import chaining, counter
from tests.loops import in_loop
from tests.serving import ROOT as CHECKOUT, Served, environment
from tests.waiting import eventually, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

HOOK = "/runtime/webhooks/durabletask"


@asynccontextmanager
async def functions(module: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an app in this process; yield an HTTP client of its functions."""
    async with Runtime(from_azure(module.app), partitions=4) as runtime:
        transport = httpx.ASGITransport(functions_app(module.app, runtime.client, **options))
        async with httpx.AsyncClient(transport=transport, base_url="http://host:7071") as http:
            yield http


@in_loop
async def test_a_function_starts_an_orchestration_and_says_where_to_look() -> None:
    async with functions(chaining) as http:
        answer = await http.post("/api/orchestrators/quote?goods=tea")
        assert answer.status_code == 202
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["location"] == answer.json()["statusQueryGetUri"]
        where = answer.json()["statusQueryGetUri"]
        assert where == f"http://host:7071{HOOK}/instances/{answer.json()['id']}"

        async def output() -> Any:
            return (await http.get(where)).json()["output"]

        await eventually(output)
        assert await output() == "TEA for you, at 3.50"
        unknown = await http.get(f"{HOOK}/instances/nobody")
        assert (unknown.status_code, list(unknown.json())) == (404, ["message"])
        assert (await http.get("/api/orchestrators/quote")).status_code == 404
        assert (await http.get("/api/nothing")).status_code == 404


@in_loop
async def test_a_function_waits_for_the_result() -> None:
    async with functions(chaining) as http:
        answer = await http.get("/api/quotes/tea")
        assert (answer.status_code, answer.text) == (200, "TEA for you, at 3.50")
        failed = await http.get("/api/quotes/mud")
        assert (failed.status_code, failed.json()["runtimeStatus"]) == (500, "Failed")


@in_loop
async def test_a_function_speaks_to_entities() -> None:
    async with functions(counter) as http:
        missing = await http.get("/api/counters/jar")
        assert (missing.status_code, missing.text) == (404, "no such counter")
        for amount in (5, 7):
            signal = await http.post("/api/counters/jar", json=amount)
            assert (signal.status_code, signal.content) == (202, b"")

        async def value() -> Any:
            found = await http.get("/api/counters/jar")
            return found.status_code == 200 and found.json() == {"value": 12}

        await eventually(value)


@in_loop
async def test_optional_parts_of_routes_prefixes_and_bodies() -> None:
    async with functions(chaining, prefix="/v1/") as http:
        assert (await http.put("/v1/echo/you", content=b"body")).text == "PUT you body"
        plain = await http.get("/v1/echo")
        assert (plain.text, plain.headers["content-type"]) == (
            "GET None ",
            "text/plain; charset=utf-8",
        )
        nothing = await http.get("/v1/ping")
        assert (nothing.status_code, nothing.content) == (204, b"")
        long = await http.post("/v1/echo", content=b"x" * (5 << 20))
        assert long.status_code == 413


@pytest.mark.parametrize(
    ("route", "paths"),
    [
        ("/api/a", ["/api/a"]),
        ("/api/{name}/x", ["/api/{name}/x"]),
        ("/api/{id:int}/{key:guid?}", ["/api/{id}", "/api/{id}/{key}"]),
        ("/api/{a?}/{b?}", ["/api", "/api/{a}", "/api/{a}/{b}"]),
        ("/api/{*rest}", ["/api/{rest:path}"]),
    ],
)
def test_routes_of_azure_as_ours(route: str, paths: list[str]) -> None:
    assert paths_of(route) == paths


@in_loop
async def test_all_but_anonymous_functions_ask_for_the_key(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret\nread:look\n")
    async with functions(chaining, tokens=Tokens(path=str(tmp_path / "tokens"))) as http:
        assert (await http.get("/api/quotes/tea")).status_code == 200
        for path, status in (("/api/echo", 200), (f"{HOOK}/instances/x", 404)):
            for query in ("", "?code=wrong"):
                assert (await http.get(path + query)).status_code == 401
            assert (await http.get(f"{path}?code=secret")).status_code == status
            for name, value in (("x-functions-key", "secret"), ("authorization", "Bearer secret")):
                assert (await http.get(path, headers={name: value})).status_code == status
        # One that may only read is for the HTTP API alone: functions may do anything.
        assert (await http.get("/api/echo?code=look")).status_code == 403
        assert (await http.get(f"{HOOK}/instances/x?code=look")).status_code == 404
        assert (await http.post(f"{HOOK}/orchestrators/x?code=look")).status_code == 403


# -- real processes -------------------------------------------------------------------------------


@contextmanager
def functions_process(served: Served, directory: Path, token_file: Path) -> Iterator[str]:
    """Run ``python -m shardrt.compat.azure``; yield its URL."""
    command = [sys.executable, "-m", "shardrt.compat.azure", "tests.compat.apps.chaining:app"]
    said = directory / "functions.err"
    with said.open("wb") as err:
        process = subprocess.Popen(
            [*command, "--url", served.url, "--port", "0", "--token-file", str(token_file)],
            cwd=CHECKOUT,
            env=environment({}),
            stderr=err,
        )
    try:
        wait_until(lambda: "running on http" in said.read_text().lower(), within_s=30)
        yield said.read_text().split("running on ")[1].split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.proc
@pytest.mark.slow
def test_an_azure_app_at_a_real_host(tmp_path: Path) -> None:
    """With `serve` as for any app, the durable API at the gateway, and functions beside it."""
    token_file = tmp_path / "token"
    token_file.write_text("secret\n")
    token_file.chmod(0o600)
    options = ["--shards", "2", "--token-file", str(token_file)]
    app = "tests.compat.apps.chaining:app"
    with Served(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path, *options, app=app) as served:
        start = f"{served.url}{HOOK}/orchestrators/quote?timeout=20&pollingInterval=0.1"
        assert httpx.post(start, json="tea").status_code == 401
        done = httpx.post(f"{start}&code=secret", json="tea", timeout=30)
        assert (done.status_code, done.json()) == (200, "TEA for you, at 3.50")
        with functions_process(served, tmp_path, token_file) as url:
            answer = httpx.get(f"{url}/api/quotes/tea", timeout=30)
            assert (answer.status_code, answer.text) == (200, "TEA for you, at 3.50")
            where = httpx.post(f"{url}/api/orchestrators/quote?goods=tea").json()
            look = where["statusQueryGetUri"]
            assert (look.startswith(url), httpx.get(look).status_code) == (True, 401)
            wait_until(lambda: httpx.get(f"{look}?code=secret").json()["output"])
            assert httpx.get(f"{url}/api/echo").status_code == 401
        assert served.interrupt() == 0


@pytest.mark.proc
@pytest.mark.slow
def test_several_azure_apps_at_a_real_host_that_is_killed_meanwhile(tmp_path: Path) -> None:
    app = "tests.compat.apps.together:app"
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    with Served(url, tmp_path, "--shards", "2", app=app) as served:
        runs = [
            ("back_up", "docs", 60),
            ("count", "jar", [0, 5, 12, "no operation 'jump'"]),
            ("deliver_all", 2, "there at attempt 2"),
            ("provision", ["lamp"], [["lamp:1", "p:lamp", "p"]]),
            ("echo", [None, "5", {}], [None, "5", {}]),
        ]
        hook = f"{served.url}{HOOK}"
        for name, given, _ in runs:
            instance_id = "p" if name == "provision" else name
            started = httpx.post(f"{hook}/orchestrators/{name}/{instance_id}", json=given)
            assert started.status_code == 202
        served.kill()
        served.start()
        for name, _, expected in runs:
            instance_id = "p" if name == "provision" else name
            look = f"{served.url}{HOOK}/instances/{instance_id}"
            wait_until(partial(has_ended, look), within_s=30)
            assert httpx.get(look).json()["output"] == expected, name
        assert served.interrupt() == 0


def has_ended(status_url: str) -> bool:
    return httpx.get(status_url).status_code == 200
