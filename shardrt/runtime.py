"""`Runtime`: a whole host inside any asyncio program.

It takes part in a hub like any other host; see `host.embedded` for what runs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from shardrt import __version__
from shardrt.client.client import Client
from shardrt.cluster.identity import passing_host_id
from shardrt.config import load
from shardrt.errors import ConfigInvalid, ShardrtError
from shardrt.host.child import loop_factory
from shardrt.host.embedded import EmbeddedHost
from shardrt.host.memory import settle_memory
from shardrt.links.messages import PROTOCOL, Welcome
from shardrt.store.factory import make_store
from shardrt.tracing.providing import make_tracer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from opentelemetry.sdk.trace import TracerProvider

    from shardrt.http.listening import Listener
    from shardrt.orchestration.app import App
    from shardrt.store.base import Store
    from shardrt.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

IN_MEMORY = "memory://"
STORE_CONNECTIONS = 4
"""Two as any shard has, two as a supervisor has."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Runtime:
    """Runs an app inside this program: ``async with Runtime(app) as rt: …``, or ``rt.run()``.

    It serves once the block is entered, and drains when it is left: activities that run get
    `host.drain_s` to end; everything else is durable at any time. A runtime can be entered
    again after it was left.

    Args:
        app: what to run.
        store: URL of the hub, or an unopened store; default: ``memory://``, which forgets
            everything when the process ends, and says so in the log.
        host_id: name of this host in the hub; default: made up.
        partitions: of a new hub; fixed from then on.
        listen: address and port, such as ``"127.0.0.1:0"``, at which other hosts of the hub,
            clients and HTTP requests are served; default: nowhere. Programs that share a store
            need it, or `host.advertise` as the URL at which `asgi` is served, to share the
            work: a host that others cannot reach owns nothing while there are others.
        settings: more settings by ``section.key``, as in a configuration file.
        tune_gc: let the garbage collector of this process run less often and pass over what
            is loaded by now. Worth a fifth of the throughput; off by default, since the
            process may not be ours alone. `run` always does it.
        tracer_provider: OpenTelemetry's, to trace with; default: if `tracing.enabled` is set,
            the one that the program has set.

    Raises:
        ConfigInvalid: settings make no sense; lists every problem.
    """

    def __init__(  # noqa: PLR0913 - all that one wants to say here
        self,
        app: App,
        *,
        store: str | Store | None = None,
        host_id: str | None = None,
        partitions: int = 32,
        listen: str | None = None,
        settings: Mapping[str, object] | None = None,
        tune_gc: bool = False,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        given: dict[str, object] = {"hub.partitions": partitions, "host.host_id": host_id}
        if store is None or isinstance(store, str):
            given["store.url"] = store or IN_MEMORY
        if listen is not None:
            given["host.bind"], given["host.port"] = _parsed(listen)
        self.settings = load(overrides=given | dict(settings or {}))
        self.host_id = self.settings.host.host_id or passing_host_id()
        self._app = app
        self._store = None if isinstance(store, str) else store
        asked_for = store is not None or "store.url" in (settings or {})
        self._volatile_level = logging.INFO if asked_for else logging.WARNING
        self._tune_gc = tune_gc
        self._tracer_provider = tracer_provider
        self.tracer: Tracer | None = None
        """What it traces with, once it runs. For gateways."""
        self._listens = listen is not None
        self._listener: Listener | None = None
        self._host: EmbeddedHost | None = None
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        """Serve.

        Raises:
            StoreError: the store is not reachable, or not ours.
            ConfigInvalid: another running host has this id.
        """
        if self._host is not None:
            raise ConfigInvalid("this runtime is running already")
        if self._listens:
            # By name: the HTTP layer is above this one, and few need it.
            self._listener = import_module("shardrt.http").listen(self)
        settings = self.settings.tracing
        self.tracer = make_tracer(settings, __version__, self._tracer_provider)
        self._host = EmbeddedHost(
            self.settings,
            self._app,
            self._make_store(),
            host_id=self.host_id,
            version=__version__,
            address=self.address,
            tracer=self.tracer,
        )
        try:
            await self._host.start()
        except BaseException:
            self._host = None
            await self._close_listener()
            raise
        self._client = await Client.connect_in_process(
            self._host.accept,
            self._welcome(),
            payload_codec=self._app.payload_codec,
            tracer=None if self.tracer is None else self.tracer.live,
        )
        if self._listener is not None:
            self._listener.start()
        if self._tune_gc:
            settle_memory()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drain and end, as leaving the block does. Idempotent."""
        client, host = self._client, self._host
        self._client = None
        try:
            if host is not None:
                await host.stop(self.settings.host.drain_s)
        finally:
            self._host = None
            if client is not None:
                await client.close()
            await self._close_listener()

    async def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()

    @property
    def address(self) -> str:
        """The URL at which others reach this runtime; empty if they do not."""
        return self.settings.host.advertise if self._listener is None else self._listener.address

    @property
    def client(self) -> Client:
        """A client of this very runtime; there is one while it runs."""
        if self._client is None:
            raise ShardrtError("the runtime is not running: use it in `async with`, or call run()")
        return self._client

    @property
    def host(self) -> EmbeddedHost:
        """What runs; there is one while it runs. For gateways and reports."""
        if self._host is None:
            raise ShardrtError("the runtime is not running: use it in `async with`, or call run()")
        return self._host

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain. A second signal does not wait."""
        self._tune_gc = True
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._run())

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002 - ASGI's
        """Serve as long as an ASGI application lives: ``FastAPI(lifespan=rt.lifespan)``."""
        async with self:
            yield

    def asgi(self) -> Any:
        """Return an ASGI application with the management API, to mount into another one.

        It can be made before the runtime runs; until then it answers 503.
        """
        # By name: the HTTP layer is above this one, and an embedded host need not load it.
        return import_module("shardrt.http").embedded(self)

    async def _run(self) -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, told.set)
        try:
            async with self:
                logger.info("host=%s serves", self.host_id)
                await _either(told.wait(), self.host.ended())
                for number in SIGNALS:
                    loop.add_signal_handler(number, self.host.hurry)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _make_store(self) -> Store:
        if self._store is not None:
            return self._store
        settings = self.settings.store
        if settings.url.startswith(IN_MEMORY):
            logger.log(
                self._volatile_level,
                "host=%s keeps its hub in memory: all of it is lost when this process ends; "
                "store= takes sqlite:///file.db or postgresql://…",
                self.host_id,
            )
        return make_store(settings.url, connections=STORE_CONNECTIONS, unsafe=settings.unsafe)

    def _welcome(self) -> Welcome:
        return Welcome(
            protocol=PROTOCOL,
            version=__version__,
            partitions=self.host.partitions,
            host_id=self.host_id,
            payload_bytes_max=self.settings.limits.payload_bytes_max,
        )


def _parsed(listen: str) -> tuple[str, int]:
    address, _, port = listen.rpartition(":")
    if not address or not port.isdecimal():
        raise ConfigInvalid(f"listen: write it as 127.0.0.1:8520, not {listen!r}")
    return address.strip("[]"), int(port)


async def _either(*awaitables: Any) -> None:
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
