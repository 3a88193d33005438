"""What other hosts bring: calls and messages between partitions, for our own shards only.

Nothing is passed on to a third host. A call for a partition that is not served here is
answered by `NotOwner`; a message is dropped, as its sender keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.cluster.calls import PendingCall, compact, is_wait
from shardrt.cluster.routing import OVERLOADED_RETRY_AFTER_S
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
    from collections.abc import Callable

    from shardrt.cluster.routing import Router
    from shardrt.links.base import Link


class PeerVisitor:
    """Listens to a gateway or shard of another host. Implements `cluster.calls.Caller`.

    Args:
        router: leads to our shards.
        link: to the other host.
        look: called when the other host wants us to look at the hub.
        left: called with this at the end of the link.
    """

    def __init__(
        self,
        router: Router,
        link: Link,
        *,
        look: Callable[[], None],
        left: Callable[[PeerVisitor], None] = lambda _: None,
    ) -> None:
        self.link = link
        self.open: set[int] = set()
        self._router = router
        self._look = look
        self._left = left

    def on_messages(self, messages: list[Any]) -> None:
        router = self._router
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
                    self._look()
                case _:
                    raise AssertionError(f"{message!r} is not decoded on these links")

    def on_closed(self) -> None:
        self._left(self)
        self._router.forget(self.open)

    def _call(self, message: ForwardRaw | Ask) -> None:
        router = self._router
        if not router.has_room(self.open):
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
            ours = msgspec.structs.replace(message, seq=seq, request=request)
        router.send_here(seq, PendingCall(self, message.seq, ours, is_wait=waits, is_once=True))

    def _forget(self, message: Forget) -> None:
        pending, theirs = self._router.pending, set(message.seqs)
        self._router.forget([seq for seq in self.open if pending[seq].caller_seq in theirs])
