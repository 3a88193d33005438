"""What a shard reads from its links: one bad request must not end a link that many share.

A gateway passes requests on unread, so that a shard is the first to look into one. A frame
that cannot be decoded is therefore looked at again, request by request: those that are none
come out as the `ForwardRaw` they are, to be refused alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shardrt.core.requests import Request
from shardrt.errors import ProtocolViolation
from shardrt.links.frames import Codec
from shardrt.links.messages import Ask, Forget, Forward, ForwardRaw, PartitionTraffic, ToShard

_decode_frame = msgspec.json.Decoder(list[ForwardRaw | Ask | Forget | PartitionTraffic]).decode
_decode_request = msgspec.json.Decoder(Request).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class ShardCodec(Codec):
    """Decodes what is sent to a shard."""

    def __init__(self) -> None:
        super().__init__(ToShard)

    def decode(self, body: bytes | str) -> list[Any]:
        """Return the messages of one frame; a `ForwardRaw` has a request that is none."""
        try:
            return super().decode(body)
        except ProtocolViolation:
            try:
                messages = _decode_frame(body)
            except _UNREADABLE as error:
                raise ProtocolViolation(f"not a frame of this link: {error}") from None
            return [_decoded(message) for message in messages]


def _decoded(message: Any) -> Any:
    return forward_of(message) if isinstance(message, ForwardRaw) else message


def forward_of(raw: ForwardRaw) -> Forward | ForwardRaw:
    """Return the call with its request decoded, or as it is if that is no request."""
    try:
        request = _decode_request(raw.request)
    except _UNREADABLE:
        return raw
    return Forward(raw.seq, raw.partition, raw.origin, raw.instance_id, request, raw.wants_end)
