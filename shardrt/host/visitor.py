"""Who talks to a shard over a link: a gateway, another shard, or a client in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.core.requests import Refusal, Wait
from shardrt.errors import ProtocolViolation
from shardrt.links.messages import Answer, Ask, Forget, Forward, ForwardRaw

if TYPE_CHECKING:
    from shardrt.host.shard import Shard
    from shardrt.links.base import Link


class Visitor:
    """A gateway or another shard, at the other end of a link."""

    def __init__(self, shard: Shard, link: Link) -> None:
        self._shard = shard
        self._link = link
        self._waits: dict[int, Forward] = {}
        """Waits that have not been answered: they last as long as who waits."""

    def on_messages(self, messages: list[Any]) -> None:
        shard, answer = self._shard, self._link.send
        for message in messages:
            if isinstance(message, Forward):
                if type(message.request) is Wait:
                    self._waits[message.seq] = message
                    shard.submit(message, self._answer_wait)
                else:
                    shard.submit(message, answer)
            elif isinstance(message, Ask):
                shard.ask(message, answer)
            elif isinstance(message, Forget):
                self._forget(message.seqs)
            elif isinstance(message, ForwardRaw):
                refusal = Refusal(ProtocolViolation.code, "not a request that is known here")
                answer(Answer(message.seq, refusal=refusal))
            else:
                shard.receive(message)

    def on_closed(self) -> None:
        """Forget its waits; other answers to it are dropped by the link."""
        self._forget(tuple(self._waits))

    def _answer_wait(self, answer: Answer) -> None:
        self._waits.pop(answer.seq, None)
        self._link.send(answer)

    def _forget(self, seqs: tuple[int, ...]) -> None:
        for seq in seqs:
            wait = self._waits.pop(seq, None)
            if wait is not None:
                self._shard.forget(wait, self._answer_wait)
