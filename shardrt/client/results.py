"""Answers to requests, decoded as the types that belong to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from shardrt.core import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.requests import Request

_decode_started = msgspec.json.Decoder(requests.Started).decode
decode_snapshot: Callable[[Raw], requests.Snapshot | None] = msgspec.json.Decoder(
    requests.Snapshot | None
).decode
_decode_explanation: Callable[[Raw], requests.Explanation | None] = msgspec.json.Decoder(
    requests.Explanation | None
).decode
_decode_reply = msgspec.json.Decoder(requests.EntityReply).decode
_decode_entity: Callable[[Raw], requests.EntitySnapshot | None] = msgspec.json.Decoder(
    requests.EntitySnapshot | None
).decode
_decode_slot: Callable[[Raw], requests.SlotSnapshot | None] = msgspec.json.Decoder(
    requests.SlotSnapshot | None
).decode
_decode_purged = msgspec.json.Decoder(requests.Purged).decode
_DONE = requests.Done()
_AS_IT_IS = (requests.GetHistory, requests.Export)
"""Requests whose result stays JSON."""

_DECODERS: dict[type[Request], Callable[[Raw], requests.Result | None]] = {
    requests.Start: _decode_started,
    requests.Restart: _decode_started,
    requests.Get: decode_snapshot,
    requests.Wait: decode_snapshot,
    requests.Purge: _decode_purged,
    requests.CallEntity: _decode_reply,
    requests.GetEntity: _decode_entity,
    requests.GetSlot: _decode_slot,
    requests.Explain: _decode_explanation,
}


def is_started(answer: Raw) -> bool:
    """Whether the answer to a start whose end was wanted is no more than that of any start."""
    return bytes(memoryview(answer)[:1]) == b"["


def decode_result(request: Request, result: Raw) -> requests.Result | None:
    """Return the result of a request as the type that belongs to it."""
    if type(request) in _AS_IT_IS:
        return None if bytes(result) == b"null" else result
    decode = _DECODERS.get(type(request))
    return _DONE if decode is None else decode(result)
