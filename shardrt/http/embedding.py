"""The HTTP API and the clients' link of a runtime that is embedded in another program.

There is no gateway: the runtime's own shard is next door, and its host leads to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shardrt import __version__
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin, Request
from shardrt.errors import PartitionUnavailable, ProtocolViolation, ShardrtError
from shardrt.http.app import build_app
from shardrt.http.link import PeerDoor
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import PROTOCOL, Call, Forward, Hello, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw
    from starlette.types import ASGIApp

    from shardrt.client import Client
    from shardrt.core.requests import Result
    from shardrt.links.admin import Question
    from shardrt.links.base import Link
    from shardrt.runtime import Runtime


_decode_request: Callable[[Raw], Request] = msgspec.json.Decoder(Request).decode


def embedded_app(runtime: Runtime) -> ASGIApp:
    """Return the application of a runtime. Requests while it does not run get a 503."""
    settings = runtime.settings
    return build_app(
        _Caller(runtime),
        accept=lambda link: _Visitor(runtime, link),
        peers=PeerDoor(
            accept=lambda link: runtime.host.accept_peer(link),  # noqa: PLW0108 - while it runs
            owner=lambda: runtime.host.owner if _is_running(runtime) else "",
        ),
        readiness=lambda: (_is_running(runtime), {}),
        tokens=settings.tokens(),
        limits=settings.limits,
        host_id=runtime.host_id,
        cors_origins=settings.host.cors_origins,
        tracer=lambda: runtime.tracer,
    )


def _is_running(runtime: Runtime) -> bool:
    try:
        return runtime.client is not None
    except ShardrtError:
        return False


class _Caller:
    """Asks the client of the runtime, while there is one."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def call(self, instance_id: str, request: Request) -> Result | None:
        return await self._client().call(instance_id, request)

    async def ask(self, question: Question) -> Raw:
        return await self._client().ask(question)

    def _client(self) -> Client:
        if not _is_running(self._runtime):
            raise PartitionUnavailable("the runtime is not running")
        return self._runtime.client


class _Visitor:
    """A client from outside; each has a link of its own to the runtime's shard."""

    def __init__(self, runtime: Runtime, link: Link) -> None:
        if not _is_running(runtime):
            raise PartitionUnavailable("the runtime is not running")
        self._runtime = runtime
        self._host = runtime.host
        self._link = link
        self._session_id = ""
        self._inner = connect_in_process(lambda _: _Answers(link), runtime.host.accept)

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Hello):
                self._session_id = message.client
                self._link.send(self._welcome())
                if message.wants_serving:
                    self._host.announcer.join(self._link)
            elif not self._session_id:
                raise ProtocolViolation("the first message must be a hello")
            else:
                self._inner.send(self._forward(message) if type(message) is Call else message)

    def on_closed(self) -> None:
        self._host.announcer.leave(self._link)
        self._inner.close()

    def _forward(self, call: Call) -> Forward:
        return Forward(
            call.seq,
            partition_of(call.instance_id, self._runtime.host.partitions),
            Origin(self._session_id, call.seq, call.low),
            call.instance_id,
            _request(call.request),
            call.wants_end,
        )

    def _welcome(self) -> Welcome:
        runtime = self._runtime
        payload_bytes_max = runtime.settings.limits.payload_bytes_max
        return Welcome(
            PROTOCOL,
            __version__,
            runtime.host.partitions,
            runtime.host_id,
            payload_bytes_max,
            runtime.host.hub_id,
        )


class _Answers:
    """Passes answers on to the client."""

    def __init__(self, client: Link) -> None:
        self._client = client

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            self._client.send(message)

    def on_closed(self) -> None:
        self._client.close()


def _request(encoded: Raw) -> Request:
    try:
        return _decode_request(encoded)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolViolation(f"not a request: {error}") from None
