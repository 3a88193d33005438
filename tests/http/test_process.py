"""The gateway as a process, with this test as its supervisor."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from msgspec import to_builtins

from shardrt.client import Client
from shardrt.config import HostSettings, Settings
from shardrt.host.child import EXIT_FATAL, EXIT_ORPHANED
from shardrt.host.health import report_of
from shardrt.links import control
from shardrt.links.control_link import ControlLink, connect_control
from tests.fake_shard import FakeShard
from tests.host.test_health import child
from tests.loops import in_loop

pytestmark = [pytest.mark.proc, pytest.mark.slow]

PARTITIONS = 4
T = TypeVar("T")


class Child:
    """The process and its control link."""

    def __init__(self) -> None:
        self.link: ControlLink
        self.process: asyncio.subprocess.Process
        self.messages: list[Any] = []
        self.news = asyncio.Event()

    async def start(self, settings: Settings, listen_fd: int = -1) -> None:
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno()] + ([listen_fd] if listen_fd >= 0 else [])
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shardrt.http.process"),
            *(str(theirs.fileno()), str(os.getpid())),
            pass_fds=fds,
        )
        theirs.close()
        self.link = await connect_control(
            ours.detach(), control.FromChild, self._on_message, self.news.set
        )
        self.link.send(
            control.Configure(
                role="gateway",
                index=0,
                settings=asdict(settings),
                app="",
                host_id="host",
                incarnation="1",
                partitions=PARTITIONS,
                socket="",
                listen_fd=listen_fd,
                hub_id="hub",
            )
        )

    def _on_message(self, message: Any) -> None:
        self.messages.append(message)
        self.news.set()
        if isinstance(message, control.Query):
            facts: dict[str, Any] = {"asked": message.seq}
            if message.what == "health":
                facts = to_builtins(report_of({"lease": "held", "children": [child()]}, Settings()))
            self.link.send(control.ClusterView(message.seq, facts))

    async def said(self, kind: type[T], count: int = 1) -> T:
        """Wait for the n-th message of a kind."""
        while True:
            found = [each for each in self.messages if isinstance(each, kind)]
            if len(found) >= count:
                return found[count - 1]
            self.news.clear()
            await self.news.wait()

    async def close(self) -> None:
        self.link.close()
        await self.link.wait_closed()
        await self.process.wait()


@asynccontextmanager
async def running(settings: Settings, listen_fd: int = -1) -> AsyncIterator[Child]:
    child = Child()
    await child.start(settings, listen_fd)
    try:
        yield child
    finally:
        await child.close()


def settings_for(port: int, **host: Any) -> Settings:
    return Settings(host=HostSettings(port=port, **host))


@in_loop
async def test_the_life_of_a_gateway(tmp_path: Path) -> None:
    shard = FakeShard()
    path = str(tmp_path / "s")
    await shard.listen(path)
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with running(settings_for(0, token_file=str(token))) as child:
        ready = await child.said(control.Ready)
        assert ready.pid == child.process.pid
        await child.said(control.Beat, 2)
        url = f"http://127.0.0.1:{ready.port}"
        child.link.send(control.Routes(1, [path] * PARTITIONS))
        async with await Client.connect(url, token="s3cret") as client:
            assert client._session.welcome is not None
            assert client._session.welcome.hub_id == "hub"
            handle = await client.start("hello", instance_id="x")
            assert await client.cluster() == {"asked": 1}
            result = asyncio.ensure_future(handle.result())
            await shard.until(lambda: bool(shard.waits))
            async with httpx.AsyncClient(base_url=url) as http:
                assert (await http.get("/health/ready")).status_code == 200
                assert (await http.get("/runtime/orchestrations/x")).status_code == 401
                shard.hold = True
                starting = asyncio.ensure_future(client.start("hello", instance_id="y"))
                await shard.until(lambda: bool(shard.held))
                child.link.send(control.Stop(20.0))
                ready_now = await http.get("/health/ready")
                while ready_now.status_code == 200:
                    ready_now = await http.get("/health/ready")
            shard.release()
            # What was under way is answered, although no more is taken.
            assert (await starting).instance_id == "y"
            assert await child.process.wait() == 0
            result.cancel()
    await shard.close()


@in_loop
async def test_it_listens_on_the_socket_that_it_inherits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        async with running(settings_for(0), listening.fileno()) as child:
            assert (await child.said(control.Ready)).port == port
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"http://127.0.0.1:{port}/health/live")
            assert answer.json() == {"status": "live"}
            child.link.send(control.Stop(0.0))
            assert await child.process.wait() == 0


@in_loop
async def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(settings_for(port)) as child:
            fatal = await child.said(control.Fatal)
            assert fatal.message == f"cannot listen on 127.0.0.1:{port}: Address already in use"
            assert await child.process.wait() == EXIT_FATAL


@in_loop
async def test_it_ends_with_its_supervisor() -> None:
    async with running(settings_for(0)) as child:
        await child.said(control.Ready)
        child.link.close()
        assert await child.process.wait() == EXIT_ORPHANED
