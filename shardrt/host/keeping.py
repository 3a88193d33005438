"""How links are kept: to shards of this host, over sockets or in this loop, and to other hosts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.cluster.upstream import is_peer
from shardrt.core.messages import Message
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Deliver, DeliverRaw, ForwardRaw, FromShard
from shardrt.links.peer import keep_peer
from shardrt.links.shard_codec import forward_of
from shardrt.links.unix import Dialer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from shardrt.cluster.upstream import Keep
    from shardrt.config import Tokens
    from shardrt.links.base import Accept, LinkHandler

_decode_messages = msgspec.json.Decoder(tuple[Message, ...]).decode


def keep_unix(path: str, accept: Accept) -> Coroutine[Any, Any, None]:
    """Keep a link to the Unix socket of a shard."""
    return Dialer(path, FromShard, accept).run()


def keep_in_process(shards: Mapping[str, Accept]) -> Keep:
    """Return how to keep links to shards in this event loop, found by these addresses."""

    async def keep(address: str, accept: Accept) -> None:
        link = connect_in_process(accept, lambda far: Decoding(shards[address](far)))
        try:
            await asyncio.Event().wait()
        finally:
            link.close()

    return keep


def keep_also_peers(keep: Keep, tokens: Tokens, payload_bytes_max: int, ca_file: str = "") -> Keep:
    """Return how to keep links to other hosts, too, trusted by the authorities in that file."""

    def keep_any(address: str, accept: Accept) -> Coroutine[Any, Any, None]:
        if is_peer(address):
            return keep_peer(
                address,
                accept,
                tokens=tokens,
                payload_bytes_max=payload_bytes_max,
                ca_file=ca_file,
            )
        return keep(address, accept)

    return keep_any


class Decoding:
    """What comes encoded, as a shard in this process expects it."""

    def __init__(self, shard: LinkHandler) -> None:
        self._shard = shard

    def on_messages(self, messages: list[Any]) -> None:
        self._shard.on_messages([decoded(message) for message in messages])

    def on_closed(self) -> None:
        self._shard.on_closed()


def decoded(message: Any) -> Any:
    """Return a message of `ToHost` as one of `ToShard`, if it is sound.

    Raises:
        msgspec.DecodeError: it holds messages between partitions that are none.
    """
    if isinstance(message, DeliverRaw):
        messages = _decode_messages(message.messages)
        return Deliver(message.source, message.destination, message.first, messages, message.epoch)
    return forward_of(message) if isinstance(message, ForwardRaw) else message
