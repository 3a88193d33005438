"""Restate: five `ctx.run` steps in a row, its server beside two processes of the Python SDK.

Settings tried and found best on two cores: four partitions, granian with two workers over
HTTP/2, 256 invocations in flight. Runs in the peers' environment; RESTATE_SERVER is the
server's program.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import restate

CITIES = ("Tokyo", "Seattle", "London", "Amsterdam", "Mumbai")
EXPECTED = [f"Hello {city}!" for city in CITIES]
PARTITIONS = 4
WORKERS = 2
IN_FLIGHT = 256
WARMUP_SHARE = 10
START_TIMEOUT_S = 20.0

service = restate.Service("Hello")


async def say_hello(city: str) -> str:
    return f"Hello {city}!"


async def _hello(ctx: restate.Context, _: int) -> list[str]:
    return [await ctx.run_typed(f"say {city}", say_hello, city=city) for city in CITIES]


hello = service.handler("hello")(_hello)
app = restate.app([service])


class Load:
    """A client of the server's ingress."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url}/Hello/hello"

    async def run_one(self) -> float:
        start_s = time.perf_counter()
        async with self._session.post(self._url, json=0) as response:
            assert await response.json() == EXPECTED, await response.text()
        return time.perf_counter() - start_s

    async def closed_loop(self, n: int, concurrency: int) -> list[float]:
        numbers = iter(range(n))
        latencies: list[float] = []

        async def work() -> None:
            latencies.extend([await self.run_one() for _ in numbers])

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
        return latencies


@contextlib.contextmanager
def running(*command: str, **variables: str) -> Iterator[None]:
    """Run a program and end it, with whatever it started."""
    process = subprocess.Popen(
        command,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # Not gently: granian would wait for connections that the server keeps.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def register(session: aiohttp.ClientSession, admin: str, service_url: str) -> None:
    """Tell the server where the service is, once both are up."""
    wanted: dict[str, Any] = {"uri": service_url, "force": True}
    deadline_s = time.monotonic() + START_TIMEOUT_S
    said = "it did not answer"
    while time.monotonic() < deadline_s:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.post(f"{admin}/deployments", json=wanted) as response:
                if response.status < 300:
                    return
                said = await response.text()
        await asyncio.sleep(0.2)
    sys.exit(f"the server does not take the service: {said}")


async def measure(n: int, alone: int, admin: str, ingress: str, service_url: str) -> None:
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector) as session:
        await register(session, admin, service_url)
        load = Load(session, ingress)
        await load.closed_loop(max(1, n // WARMUP_SHARE), IN_FLIGHT)
        print("begin", flush=True)
        start_s = time.perf_counter()
        await load.closed_loop(n, IN_FLIGHT)
        print("end", json.dumps({"n": n, "seconds": time.perf_counter() - start_s}), flush=True)
        ordered = sorted(await load.closed_loop(alone, 1))
        print("alone", json.dumps({"p50_ms": ordered[len(ordered) // 2] * 1000}), flush=True)


def main(n: int, alone: int) -> None:
    admin, ingress, node, port = free_port(), free_port(), free_port(), free_port()
    module = f"{os.path.splitext(os.path.basename(__file__))[0]}:app"
    granian = os.path.join(os.path.dirname(sys.executable), "granian")
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            os.environ["RESTATE_SERVER"],
            "--no-logo",
            *("--node-name", "bench", "--base-dir", directory, "--listen-mode", "tcp"),
            *("--bind-ip", "127.0.0.1", "--bind-port", node),
            RESTATE_ADMIN__BIND_PORT=admin,
            RESTATE_INGRESS__BIND_PORT=ingress,
            RESTATE_DEFAULT_NUM_PARTITIONS=str(PARTITIONS),
            RESTATE_LOG_FILTER="error,octocrab=off",
            DO_NOT_TRACK="1",
        ),
        running(
            *(granian, "--interface", "asgi", "--http", "2", "--workers", str(WORKERS)),
            *("--no-access-log", "--log-level", "error", "--port", port, module),
            PYTHONPATH=os.path.dirname(os.path.abspath(__file__)),
        ),
    ):
        local = "http://127.0.0.1:"
        asyncio.run(measure(n, alone, local + admin, local + ingress, local + port))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--alone", type=int, default=200)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(given.n, given.alone)
