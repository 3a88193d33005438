"""Who talks to a shard over a link: a gateway, another shard, or a client in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.core.requests import Refusal
from shardrt.errors import ProtocolViolation
from shardrt.links.messages import Answer, Ask, Forward, ForwardRaw

if TYPE_CHECKING:
    from shardrt.host.shard import Shard
    from shardrt.links.base import Link


class Visitor:
    """A gateway or another shard, at the other end of a link."""

    def __init__(self, shard: Shard, link: Link) -> None:
        self._shard = shard
        self._link = link

    def on_messages(self, messages: list[Any]) -> None:
        shard, answer = self._shard, self._link.send
        for message in messages:
            if isinstance(message, Forward):
                shard.submit(message, answer)
            elif isinstance(message, Ask):
                shard.ask(message, answer)
            elif isinstance(message, ForwardRaw):
                refusal = Refusal(ProtocolViolation.code, "not a request that is known here")
                answer(Answer(message.seq, refusal=refusal))
            else:
                shard.receive(message)

    def on_closed(self) -> None:
        """Answers to it are dropped by the link."""
