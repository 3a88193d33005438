"""A gateway as a child process: ``python -m shardrt.http.process``, started by a supervisor.

It listens on the socket that the supervisor bound, routes calls as the supervisor says, and
never imports user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn

from shardrt import __version__
from shardrt.client.session import Session
from shardrt.cluster.routing import STRANDED_S
from shardrt.config import HostSettings, LimitSettings, Settings
from shardrt.config.tls import Certificate
from shardrt.errors import ConfigInvalid
from shardrt.host.child import FatalStart, Parent, run_child
from shardrt.host.keeping import keep_also_peers, keep_unix
from shardrt.host.memory import settle_memory
from shardrt.http.app import build_app
from shardrt.http.gateway import Gateway
from shardrt.http.guard import Door, protocols
from shardrt.http.link import PeerDoor
from shardrt.links import control
from shardrt.links.frames import client_frame_bytes_max
from shardrt.links.messages import PROTOCOL, Welcome
from shardrt.tracing.providing import make_tracer, provide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

HTTP_SLACK_S = 2.0
"""How much longer than the gateway keeps a call an HTTP request is kept, to learn why not."""

BACKLOG = 2048
END_S = 1.0
"""How long connections may take to close once everything is answered."""


class GatewayProcess:
    """The gateway of this process, and the supervisor's orders to it."""

    def __init__(self, parent: Parent, configure: control.Configure) -> None:
        self._settings = msgspec.convert(configure.settings, Settings)
        self._parent = parent
        self._listen_fd = configure.listen_fd
        self._partitions = configure.partitions
        self._host_id = configure.host_id
        self._stranded_s_max = self._settings.host.lease_ttl_s + STRANDED_S
        self._version = 0
        """Of the routes."""
        try:
            self._settings.check_files()
            self._tokens = self._settings.tokens()
            provide(self._settings.tracing, f"gateway-{configure.index}", configure.host_id)
        except ConfigInvalid as error:
            raise FatalStart(str(error)) from None
        self._tracer = make_tracer(self._settings.tracing, __version__)
        self._queries: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._query_seq = 0
        self._gateway = Gateway(
            Welcome(
                PROTOCOL,
                __version__,
                configure.partitions,
                configure.host_id,
                self._settings.limits.payload_bytes_max,
                configure.hub_id,
            ),
            ask_supervisor=self._ask_supervisor,
            keep=keep_also_peers(
                keep_unix,
                self._tokens,
                self._settings.limits.payload_bytes_max,
                self._settings.host.tls_ca,
            ),
            look=lambda: parent.send(control.Stale(self._version)),
            nudged=lambda: parent.send(control.Nudged()),
            stranded_s_max=self._stranded_s_max,
            instance_id_chars_max=self._settings.limits.instance_id_chars_max,
        )

    async def run(self) -> None:
        """Serve until the supervisor says stop, and what is under way is answered."""
        with self._listening_socket() as listening:
            # The HTTP API is a client of the gateway like any other, but nearer.
            timeout_s = self._stranded_s_max + HTTP_SLACK_S
            session = Session(self._gateway.dial(), call_timeout_s=timeout_s)
            await session.open()
            server = self._server(session)
            async with asyncio.TaskGroup() as tasks:
                parts = [
                    tasks.create_task(self._gateway.run()),
                    tasks.create_task(self._parent.beat(self._beat)),
                ]
                serving = tasks.create_task(server.serve(sockets=[listening]))
                settle_memory()
                self._parent.send(control.Ready(os.getpid(), listening.getsockname()[1]))
                grace_s = await self._obey()
                draining = tasks.create_task(self._gateway.drain(grace_s))
                while not draining.done():
                    await self._obey_until(draining)
                server.should_exit = True
                await serving
                await session.close()
                for part in parts:
                    part.cancel()

    async def _obey(self) -> float:
        """Follow orders until the one to stop; return its grace."""
        while True:
            message = await self._parent.receive()
            if isinstance(message, control.Stop):
                return message.grace_s
            self._on_order(message)

    async def _obey_until(self, draining: asyncio.Task[None]) -> None:
        """Follow further orders while draining; a second stop hurries."""
        order = asyncio.ensure_future(self._parent.receive())
        await asyncio.wait([order, draining], return_when=asyncio.FIRST_COMPLETED)
        if not order.done():
            order.cancel()
        elif isinstance(order.result(), control.Stop):
            draining.cancel()
        else:
            self._on_order(order.result())

    def _on_order(self, message: control.ToChild) -> None:
        if isinstance(message, control.Routes):
            self._version = message.version
            self._gateway.set_routes(message.targets, message.owner, message.era)
        elif isinstance(message, control.Nudge):
            self._gateway.router.nudge(message.targets)
        elif isinstance(message, control.Leave):
            self._gateway.leaving = True
        elif isinstance(message, control.ClusterView):
            answered = self._queries.pop(message.seq, None)
            if answered is not None:
                answered(message.view)

    def _ask_supervisor(
        self, what: control.Subject, answered: Callable[[dict[str, Any]], None]
    ) -> None:
        self._query_seq += 1
        self._queries[self._query_seq] = answered
        self._parent.send(control.Query(self._query_seq, what))

    def _beat(self) -> control.Beat:
        return control.Beat(
            counters={
                "calls_under_way": self._gateway.calls_under_way,
                "partitions_served": self._gateway.partitions_served,
            }
        )

    def _listening_socket(self) -> socket.socket:
        if self._listen_fd >= 0:
            return socket.socket(fileno=self._listen_fd)
        host = self._settings.host
        try:
            family = socket.AF_INET6 if ":" in host.bind else socket.AF_INET
            return socket.create_server((host.bind, host.port), family=family, backlog=BACKLOG)
        except OSError as error:
            where = f"{host.bind}:{host.port}"
            why = os.strerror(error.errno) if error.errno else str(error)
            raise FatalStart(f"cannot listen on {where}: {why}") from None

    def _server(self, session: Session) -> uvicorn.Server:
        limits = self._settings.limits
        app = build_app(
            session,
            accept=self._gateway.accept,
            peers=PeerDoor(accept=self._gateway.accept_peer, owner=lambda: self._gateway.owner),
            readiness=self._readiness,
            tokens=self._tokens,
            limits=limits,
            host_id=self._host_id,
            cors_origins=self._settings.host.cors_origins,
            tracer=lambda: self._tracer,
        )
        return QuietServer(uvicorn_config(app, limits, self._settings.host))

    def _readiness(self) -> tuple[bool, dict[str, Any]]:
        served = self._gateway.partitions_served
        facts = {"partitions": self._partitions, "partitionsServed": served}
        return self._gateway.is_ready, facts


class QuietServer(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def uvicorn_config(
    app: Any, limits: LimitSettings | None = None, host: HostSettings | None = None
) -> uvicorn.Config:
    """Return how uvicorn shall serve the application, whoever runs it."""
    limits, host = limits or LimitSettings(), host or HostSettings()
    config = uvicorn.Config(
        app,
        **protocols(Door(limits)),
        ws_max_size=client_frame_bytes_max(limits.payload_bytes_max),
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(END_S)),
        backlog=BACKLOG,
        ssl_certfile=host.tls_cert or None,
        ssl_keyfile=host.tls_key or None,
    )
    if host.tls_cert:
        config.load()
        assert config.ssl is not None, "made of the certificate"
        Certificate(host.tls_cert, host.tls_key).show(config.ssl)
    return config


async def serve(parent: Parent, configure: control.Configure) -> None:
    """Be the gateway that `configure` describes."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it tells of every client
    await GatewayProcess(parent, configure).run()


if __name__ == "__main__":
    run_child(serve)
