"""How a session reaches a host: over WebSocket, or to a shard in the same event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt import __version__
from shardrt.client.wire import TypedAsk, TypedCall
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin
from shardrt.errors import ConfigInvalid, ConnectionLost, ProtocolViolation
from shardrt.links.frames import client_frame_bytes_max
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import PROTOCOL, Ask, Forward, Hello, ToClient, Welcome
from shardrt.links.websocket import AWAITED_TICKS, IDLE_TICKS, RESULT_TICKS, dial_websocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.client.lines import Asker, Dial
    from shardrt.links.base import Accept, Link, LinkHandler

HANDSHAKE_S = 10.0


class _Greeter:
    """Listens on a link until it is welcomed, then hands it over."""

    def __init__(self, session: LinkHandler) -> None:
        self.welcomed: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._session = session
        self.adopted = False
        """Whether the session has taken the link; before that it is not told of its end."""

    def on_messages(self, messages: list[Any]) -> None:
        if not self.welcomed.done():
            welcome, *messages = messages
            if not isinstance(welcome, Welcome):
                raise ProtocolViolation("expected a welcome")
            self.welcomed.set_result(welcome)
        if messages:
            self._session.on_messages(messages)

    def on_closed(self) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionLost("the host hung up before its welcome"))
            self.welcomed.exception()  # who was to hear it may have given up
        if self.adopted:
            self._session.on_closed()


async def _greet(link: Link, greeter: _Greeter, hello: Hello) -> Welcome:
    link.send(hello)
    welcome = await greeter.welcomed
    if welcome.protocol != PROTOCOL:
        raise ProtocolViolation(
            f"the host speaks protocol {welcome.protocol}, this client {PROTOCOL}: "
            f"use the release of the host ({welcome.version})"
        )
    return welcome


def urls_of(given: str | Sequence[str]) -> list[str]:
    """Return the URLs in a list, or in a text with commas between them.

    Raises:
        ConfigInvalid: there is none.
    """
    parts = given.split(",") if isinstance(given, str) else given
    urls = [part.strip() for part in parts if part.strip()]
    if not urls:
        raise ConfigInvalid("give at least one URL")
    return urls


def silence_ticks(session: Asker) -> int:
    """Return for how long a host may be silent before it is asked whether it is there."""
    if session.is_calling:
        return AWAITED_TICKS
    return RESULT_TICKS if session.is_waiting else IDLE_TICKS


def over_websocket(
    url: str, token: str | None = None, ca_file: str | None = None, *, is_one_of_many: bool = False
) -> Dial:
    """Return how to reach a host.

    Args:
        url: where it is.
        token: if it asks for one.
        ca_file: of the authorities by which it is trusted, if not the system's.
        is_one_of_many: whether there are lines to other hosts: it is asked what it serves.
    """

    async def dial(session_id: str, session: Asker) -> tuple[Link, Welcome]:
        greeter = _Greeter(session)
        hello = Hello(session_id, PROTOCOL, __version__, is_one_of_many)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                link = await dial_websocket(
                    url,
                    token,
                    ToClient,
                    lambda _: greeter,
                    ca_file=ca_file or "",
                    silence_ticks=partial(silence_ticks, session),
                    is_busy=lambda: session.is_busy,
                )
                try:
                    welcome = await _greet(link, greeter, hello)
                except BaseException:
                    link.close()
                    raise
        except TimeoutError:
            raise ConnectionLost(f"no answer from {url} within {HANDSHAKE_S:g} s") from None
        link.codec.size_max = client_frame_bytes_max(welcome.payload_bytes_max)
        greeter.adopted = True
        return link, welcome

    return dial


def in_process(accept: Accept, welcome: Welcome) -> Dial:
    """Return how to reach a shard in this event loop.

    Args:
        accept: the shard's; it is sent `Forward` and `Ask` and answers with `Answer`.
        welcome: what a gateway would say.
    """

    async def dial(session_id: str, session: Asker) -> tuple[Link, Welcome]:
        def far(link: Link) -> LinkHandler:
            return _Forwarding(accept(link), session_id, welcome.partitions)

        return connect_in_process(lambda _: session, far), welcome

    return dial


class _Forwarding:
    """Turns calls into what a gateway would forward."""

    def __init__(self, shard: LinkHandler, session_id: str, partitions: int) -> None:
        self._shard = shard
        self._session_id = session_id
        self._partitions = partitions

    def on_messages(self, messages: list[Any]) -> None:
        self._shard.on_messages([self._forward(message) for message in messages])

    def on_closed(self) -> None:
        self._shard.on_closed()

    def _forward(self, message: TypedCall | TypedAsk) -> Forward | Ask:
        if type(message) is TypedAsk:
            return Ask(message.seq, Raw(msgspec.json.encode(message.question)))
        return Forward(
            message.seq,
            partition_of(message.instance_id, self._partitions),
            Origin(self._session_id, message.seq, message.low),
            message.instance_id,
            message.request,
            message.wants_end,
        )
