"""A real gateway, at a real port, in front of stand-ins for shards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

from shardrt.client import Client
from shardrt.client.session import Session
from shardrt.config import LimitSettings, Tokens
from shardrt.host.keeping import keep_also_peers, keep_unix
from shardrt.http.app import build_app
from shardrt.http.gateway import Gateway
from shardrt.http.link import PeerDoor
from shardrt.http.process import QuietServer, uvicorn_config
from shardrt.links.messages import PROTOCOL, Welcome
from shardrt.links.peer import target_of
from tests.fake_shard import FakeShard
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

T = TypeVar("T")

PARTITIONS = 8
LIMITS = LimitSettings(payload_bytes_max=64 * 1024)


class FakeHost:
    """Shards, a gateway that routes to them, and its HTTP server."""

    def __init__(
        self,
        *,
        shards: int = 1,
        token: str | None = None,
        tokens: Tokens | None = None,
        limits: LimitSettings = LIMITS,
        stranded_s_max: float = 20.0,
        owner: str = "host/1",
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="shardrt-")
        self.shards = [FakeShard() for _ in range(shards)]
        self.paths = [f"{self._directory.name}/s{index}" for index in range(shards)]
        welcome = Welcome(PROTOCOL, "0", PARTITIONS, "host", LIMITS.payload_bytes_max)
        self.tokens = tokens or Tokens(token or "")
        keep = keep_also_peers(keep_unix, self.tokens, LIMITS.payload_bytes_max)
        self.gateway = Gateway(welcome, keep=keep, stranded_s_max=stranded_s_max)
        self.owner = owner
        self.limits = limits
        self.token = token
        self.port = 0
        self.session = Session(self.gateway.dial(), call_timeout_s=2.0)
        self._server: QuietServer | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def shard(self) -> FakeShard:
        return self.shards[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def target(self) -> str:
        """As which other hosts know it."""
        return target_of(self.url, self.owner)

    def app(self, session: Session) -> Any:
        return build_app(
            session,
            accept=self.gateway.accept,
            peers=PeerDoor(accept=self.gateway.accept_peer, owner=lambda: self.gateway.owner),
            readiness=lambda: (self.gateway.is_ready, {}),
            tokens=self.tokens,
            limits=LIMITS,
        )

    def route(self) -> None:
        """Route all partitions to the shards in turn."""
        count = len(self.paths)
        routes = [self.paths[each % count] for each in range(PARTITIONS)]
        self.gateway.set_routes(routes, self.owner)

    async def linked(self) -> None:
        """Wait until the gateway has links to all shards."""
        await eventually(lambda: self.gateway.partitions_served == PARTITIONS)

    async def restart_http(self) -> None:
        await self.stop_http()
        await self.start_http()

    async def start_http(self) -> None:
        """Serve at the port that was used before, if any."""
        config = uvicorn_config(self.app(self.session), self.limits)
        self._server = QuietServer(config)
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        server = self._server
        await eventually(lambda: server.started)

    async def stop_http(self) -> None:
        """Hang up on all clients, and listen no more."""
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        await self._serving

    async def client(self, **options: Any) -> Client:
        return await Client.connect(self.url, token=self.token, **options)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, **options: Any) -> AsyncIterator[Self]:
        """Everything up, until the block ends."""
        host = cls(**options)
        for shard, path in zip(host.shards, host.paths, strict=True):
            await shard.listen(path)
        gateway = asyncio.create_task(host.gateway.run())
        try:
            await host.session.open()
            host.route()
            await host.start_http()
            await host.linked()
            yield host
            await host.stop_http()
        finally:
            await host.session.close()
            gateway.cancel()
            await asyncio.gather(gateway, return_exceptions=True)
            for shard in host.shards:
                await shard.close()
            host._directory.cleanup()


class HostThread:
    """A fake host in a thread, for programs that block."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._up: Future[tuple[FakeHost, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        try:
            async with FakeHost.running(**self._options) as host:
                down = asyncio.Event()
                self._up.set_result((host, asyncio.get_running_loop(), down))
                await down.wait()
        except BaseException as error:
            if not self._up.done():
                self._up.set_exception(error)
            raise

    def __enter__(self) -> Self:
        self._thread.start()
        self._host, self._loop, self._down = self._up.result(30)
        self.url = self._host.url
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join()

    def do(self, action: Callable[[FakeHost], T]) -> T:
        """Do something to the host, in its loop."""

        async def act() -> T:
            return action(self._host)

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(30)
