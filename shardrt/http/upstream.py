"""One shard, as the gateway sees it: an address, and a link while there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.requests import Request
from shardrt.errors import ProtocolViolation
from shardrt.links.base import Accept, Link, LinkHandler
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Ask, Forget, Forward, ForwardRaw, FromShard
from shardrt.links.shard_codec import forward_of
from shardrt.links.unix import Dialer

if TYPE_CHECKING:
    from collections.abc import Mapping

Keep: TypeAlias = Callable[[str, Accept], Coroutine[Any, Any, None]]
"""Keeps a link to an address until it is cancelled."""

_decode_request: Callable[[Raw], Request] = msgspec.json.Decoder(Request).decode


def keep_unix(path: str, accept: Accept) -> Coroutine[Any, Any, None]:
    """Keep a link to the Unix socket of a shard."""
    return Dialer(path, FromShard, accept).run()


def keep_in_process(shards: Mapping[str, Accept]) -> Keep:
    """Return how to keep links to shards in this event loop, found by these addresses."""

    async def keep(address: str, accept: Accept) -> None:
        link = connect_in_process(accept, lambda far: _Decoding(shards[address](far)))
        try:
            await asyncio.Event().wait()
        finally:
            link.close()

    return keep


class Upstream:
    """Listens on the links to one shard, one after the other."""

    def __init__(
        self,
        address: str,
        on_opened: Callable[[], None],
        on_messages: Callable[[list[Any]], None],
        on_lost: Callable[[Upstream], None],
    ) -> None:
        self.address = address
        self.link: Link | None = None
        self.on_messages = on_messages
        self._on_opened = on_opened
        self._on_lost = on_lost

    def accept(self, link: Link) -> LinkHandler:
        self.link = link
        self._on_opened()
        return self

    def on_closed(self) -> None:
        self.link = None
        self._on_lost(self)


class _Decoding:
    """What comes encoded from clients of a gateway, as a shard in this process expects it."""

    def __init__(self, shard: LinkHandler) -> None:
        self._shard = shard

    def on_messages(self, messages: list[Any]) -> None:
        self._shard.on_messages([self._decoded(message) for message in messages])

    def on_closed(self) -> None:
        self._shard.on_closed()

    def _decoded(self, message: ForwardRaw | Ask | Forget) -> Forward | ForwardRaw | Ask | Forget:
        return forward_of(message) if isinstance(message, ForwardRaw) else message


def decode_request(encoded: Raw) -> Request:
    """Return a request; `ProtocolViolation` if it is none."""
    try:
        return _decode_request(encoded)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolViolation(f"not a request: {error}") from None
