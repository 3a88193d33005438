"""Who talks to a shard over a link: a gateway, another shard, or a client in this process."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from shardrt.core.requests import Refusal, Start, Wait
from shardrt.errors import ProtocolViolation
from shardrt.links.messages import Accepted, Answer, Ask, Forget, Forward, ForwardRaw

if TYPE_CHECKING:
    from shardrt.host.shard import Shard
    from shardrt.links.base import Link

ACCEPTED_S = 0.04
"""Who wants the end of what it starts is told that it is durable only if the end is later than
that, and after twice as long at the latest: most ends come before."""

_WAIT = Wait()


class Visitor:
    """A gateway or another shard, at the other end of a link."""

    def __init__(self, shard: Shard, link: Link) -> None:
        self._shard = shard
        self._link = link
        self._waits: dict[int, Forward] = {}
        """Waits that have not been answered: they last as long as who waits."""
        self._runs: dict[int, int] = {}
        """Starts whose ends are wanted, until they are durable: how often each was sent. A client
        that goes by several ways may have sent it twice by this one."""
        self._untold: set[int] = set()
        """Durable ones without an end so far, of which nothing has been said."""
        self._to_tell: set[int] = set()
        """Those among them of which is told next time."""
        self._teller: asyncio.TimerHandle | None = None

    def on_messages(self, messages: list[Any]) -> None:
        shard, answer = self._shard, self._link.send
        for message in messages:
            if isinstance(message, Forward):
                if type(message.request) is Wait:
                    self._waits[message.seq] = message
                    shard.submit(message, self._answer_wait)
                elif message.wants_end and type(message.request) is Start:
                    self._runs[message.seq] = self._runs.get(message.seq, 0) + 1
                    shard.submit(message, partial(self._answer_run, message))
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
        self._runs.clear()
        self._forget(tuple(self._waits))
        if self._teller is not None:
            self._teller.cancel()

    def _answer_wait(self, answer: Answer) -> None:
        self._waits.pop(answer.seq, None)
        if answer.seq in self._untold:
            self._untold.discard(answer.seq)
            if answer.refusal is not None:
                # Only the waiting is refused: who makes the start again could be told that it was.
                self._link.send(Accepted((answer.seq,)))
        self._link.send(answer)

    def _answer_run(self, run: Forward, answer: Answer) -> None:
        """Wait for the end of what has been started, on behalf of who wants it."""
        seq = run.seq
        copies = self._runs.pop(seq, 0)
        if not copies:
            return  # who wanted it has gone
        if copies > 1:
            self._runs[seq] = copies - 1
        if answer.refusal is not None:
            self._link.send(answer)
            return
        wait = Forward(seq, run.partition, run.origin, run.instance_id, _WAIT)
        self._waits[seq] = wait
        self._untold.add(seq)
        if self._teller is None:
            self._teller = asyncio.get_running_loop().call_later(ACCEPTED_S, self._tell_accepted)
        self._shard.hand_over(wait, self._answer_wait)

    def _tell_accepted(self) -> None:
        told = self._to_tell & self._untold
        self._untold -= told
        self._to_tell = set(self._untold)
        self._teller = None
        if told:
            self._link.send(Accepted(tuple(sorted(told))))
        if self._to_tell:
            self._teller = asyncio.get_running_loop().call_later(ACCEPTED_S, self._tell_accepted)

    def _forget(self, seqs: tuple[int, ...]) -> None:
        for seq in seqs:
            self._runs.pop(seq, None)
            self._untold.discard(seq)
            wait = self._waits.pop(seq, None)
            if wait is not None:
                self._shard.forget(wait, self._answer_wait)
