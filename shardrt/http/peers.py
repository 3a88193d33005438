"""What other hosts bring: calls and messages between partitions, for our own shards only.

Nothing is passed on to a third host. A call for a partition that is not served here is
answered by `NotOwner`; a message is dropped, as its sender keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.cluster.calls import PendingCall, compact, is_wait
from shardrt.core.requests import Refusal
from shardrt.errors import Overloaded
from shardrt.links.messages import (
    Acknowledge,
    Answer,
    Ask,
    DeliverRaw,
    Forget,
    ForwardRaw,
    Look,
    NotOwner,
    Resend,
)

if TYPE_CHECKING:
    from shardrt.http.gateway import Gateway
    from shardrt.links.base import Link

OVERLOADED_RETRY_AFTER_S = 0.5


class PeerVisitor:
    """Listens to a gateway or shard of another host. Implements `cluster.calls.Caller`."""

    def __init__(self, gateway: Gateway, link: Link) -> None:
        self.link = link
        self.open: set[int] = set()
        self._gateway = gateway

    def on_messages(self, messages: list[Any]) -> None:
        router = self._gateway.router
        for message in messages:
            match message:
                case ForwardRaw() | Ask():
                    self._call(message)
                case DeliverRaw():
                    router.pass_on(message.destination, message)
                case Acknowledge() | Resend():
                    router.pass_on(message.source, message)
                case Forget():
                    self._forget(message)
                case Look():
                    self._gateway.look()
                case _:
                    raise AssertionError(f"{message!r} is not decoded on these links")

    def on_closed(self) -> None:
        self._gateway.leave_peer(self)

    def _call(self, message: ForwardRaw | Ask) -> None:
        router = self._gateway.router
        if not self._gateway.has_room(self.open):
            text = f"{len(router.pending)} calls are under way"
            refusal = Refusal(Overloaded.code, text, OVERLOADED_RETRY_AFTER_S)
            self.link.send(Answer(message.seq, refusal=refusal))
            return
        seq = router.number()
        ours: ForwardRaw | Ask
        waits = False
        if isinstance(message, Ask):
            ours = Ask(seq, message.question)
        elif not 0 <= message.partition < len(router.routes):
            self.link.send(NotOwner(message.seq))
            return
        else:
            request = compact(message.request)
            waits = is_wait(request)
            ours = ForwardRaw(seq, message.partition, message.origin, message.instance_id, request)
        router.send_here(seq, PendingCall(self, message.seq, ours, is_wait=waits, is_once=True))

    def _forget(self, message: Forget) -> None:
        pending, theirs = self._gateway.router.pending, set(message.seqs)
        forgotten = [seq for seq in self.open if pending[seq].caller_seq in theirs]
        self._gateway.router.forget(forgotten)
