"""How a gateway keeps links to shards: over sockets, or in its own loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.core.messages import Message
from shardrt.core.requests import Request
from shardrt.errors import ProtocolViolation
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import (
    Deliver,
    DeliverRaw,
    ForwardRaw,
    FromShard,
)
from shardrt.links.shard_codec import forward_of
from shardrt.links.unix import Dialer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from shardrt.cluster.upstream import Keep
    from shardrt.links.base import Accept, LinkHandler

_decode_messages = msgspec.json.Decoder(tuple[Message, ...]).decode
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


class _Decoding:
    """What comes encoded from clients of a gateway, as a shard in this process expects it."""

    def __init__(self, shard: LinkHandler) -> None:
        self._shard = shard

    def on_messages(self, messages: list[Any]) -> None:
        self._shard.on_messages([self._decoded(message) for message in messages])

    def on_closed(self) -> None:
        self._shard.on_closed()

    def _decoded(self, message: Any) -> Any:
        if isinstance(message, DeliverRaw):
            messages = _decode_messages(message.messages)
            return Deliver(message.source, message.destination, message.first, messages)
        return forward_of(message) if isinstance(message, ForwardRaw) else message


def decode_request(encoded: Raw) -> Request:
    """Return a request; `ProtocolViolation` if it is none."""
    try:
        return _decode_request(encoded)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolViolation(f"not a request: {error}") from None
