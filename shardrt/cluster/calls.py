"""Calls on their way: from a client, to the owner of a partition, and their answers back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Raw

from shardrt.core.requests import Request, Start
from shardrt.links.messages import Ask, ForwardRaw

if TYPE_CHECKING:
    from shardrt.cluster.upstream import Upstream
    from shardrt.links.base import Link

_WAIT = b'["wait"]'
WAIT = Raw(_WAIT)
START_PREFIX = b'["start"'

_decode_request = msgspec.json.Decoder(Request).decode


class Caller(Protocol):
    """Who has made calls and wants their answers."""

    link: Link
    """Where `Answer` and `Accepted` go, under the caller's numbers; to a peer, `NotOwner`s too."""
    open: set[int]
    """The router's numbers of its calls under way. The router keeps it."""


class PendingCall:
    """A call without an answer so far, and all it takes to send it again."""

    __slots__ = (
        "caller",
        "caller_seq",
        "is_once",
        "is_wait",
        "message",
        "sent_at",
        "stranded_at",
        "upstream",
        "why",
    )

    def __init__(
        self,
        caller: Caller,
        caller_seq: int,
        message: ForwardRaw | Ask,
        *,
        is_wait: bool,
        is_once: bool = False,
    ) -> None:
        self.caller = caller
        self.caller_seq = caller_seq
        self.message = message
        self.is_wait = is_wait
        """Waits may take for ever; nothing waits for them."""
        self.is_once = is_once
        """It came from a peer, which tries again by itself."""
        self.upstream: Upstream | None = None
        """Where it was sent; None while it is stranded: there is nowhere to send it."""
        self.sent_at = 0.0
        """When it was sent again; 0 at first."""
        self.stranded_at: float | None = None
        """Since when there has been no owner that takes it; None: there always was."""

        self.why = ""
        """What was said when it was refused last."""

    @property
    def lasts(self) -> bool:
        """Whether the owner may have to be told that nobody wants the answer any more."""
        message = self.message
        return self.is_wait or (isinstance(message, ForwardRaw) and message.wants_end)

    @property
    def partition(self) -> int | None:
        """Which it is for; None: any will do."""
        message = self.message
        return message.partition if isinstance(message, ForwardRaw) else None

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
            message.wants_end,
        )

    def becomes_wait(self) -> None:
        """Note that a start is durable: what is left is to wait for the end of the instance."""
        message = self.message
        assert isinstance(message, ForwardRaw), "questions do not wait"
        self.is_wait = True
        self.message = ForwardRaw(
            message.seq, message.partition, message.origin, message.instance_id, WAIT
        )


def compact(request: Raw) -> Raw:
    """Return the request so that a long wait does not keep alive the frame that it came in."""
    return WAIT if is_wait(request) else request


def is_wait(request: Raw) -> bool:
    return memoryview(request).nbytes == len(_WAIT) and bytes(request) == _WAIT


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
