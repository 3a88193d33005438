"""Calls on their way: from a client, to the owner of a partition, and their answers back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from shardrt.core.requests import Request, Start
from shardrt.links.messages import Ask, ForwardRaw

if TYPE_CHECKING:
    from shardrt.http.upstream import Upstream
    from shardrt.http.visitor import Visitor

_WAIT = b'["wait"]'
WAIT = Raw(_WAIT)
START_PREFIX = b'["start"'

_decode_request = msgspec.json.Decoder(Request).decode


class PendingCall:
    """A call without an answer so far, and all it takes to send it again."""

    __slots__ = ("client_seq", "is_wait", "message", "stranded_at", "upstream", "visitor")

    def __init__(
        self, visitor: Visitor, client_seq: int, message: ForwardRaw | Ask, *, is_wait: bool
    ) -> None:
        self.visitor = visitor
        self.client_seq = client_seq
        self.message = message
        self.is_wait = is_wait
        """Waits may take for ever; nothing waits for them."""
        self.upstream: Upstream | None = None
        """Where it was sent; None while it is stranded: there is nowhere to send it."""
        self.stranded_at = 0.0

    def renumbered(self, seq: int) -> ForwardRaw | Ask:
        """Return the message for another try, which must not claim to be the first."""
        message = self.message
        if isinstance(message, Ask):
            return Ask(seq, message.question)
        return ForwardRaw(
            seq,
            message.partition,
            message.origin,
            message.instance_id,
            not_fresh(message.request),
        )


def compact(request: Raw) -> Raw:
    """Return the request so that a long wait does not keep alive the frame that it came in."""
    is_wait = memoryview(request).nbytes == len(_WAIT) and bytes(request) == _WAIT
    return WAIT if is_wait else request


def not_fresh(request: Raw) -> Raw:
    """Return the request without the promise that it was never sent before."""
    if not bytes(request).startswith(START_PREFIX):
        return request
    try:
        start = _decode_request(request)
    except msgspec.MsgspecError:
        return request  # the owner will say what is wrong with it
    if not isinstance(start, Start) or not start.fresh:
        return request
    return Raw(msgspec.json.encode(msgspec.structs.replace(start, fresh=False)))


def is_start(request: Raw) -> bool:
    return bytes(memoryview(request)[: len(START_PREFIX)]) == START_PREFIX
