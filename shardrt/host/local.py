"""A client in the process of an embedded host: to its own shard directly, else by the router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.cluster.calls import PendingCall
from shardrt.cluster.routing import OVERLOADED_RETRY_AFTER_S, RETRY_AFTER_S
from shardrt.core.requests import Refusal, Wait
from shardrt.errors import Overloaded, PartitionUnavailable, PartitionUnreachable
from shardrt.host.visitor import Visitor
from shardrt.links.admin import Cluster, HostHealth, Metrics, Question
from shardrt.links.messages import Answer, Ask, Forward, ForwardRaw

if TYPE_CHECKING:
    from shardrt.host.embedded import EmbeddedHost
    from shardrt.links.base import Link

_decode_question = msgspec.json.Decoder(Question).decode


class LocalVisitor(Visitor):
    """Passes on what the shard of this host cannot answer. Implements `cluster.calls.Caller`.

    What the shard refuses because a partition moves just now is sent again by the client.
    """

    def __init__(self, host: EmbeddedHost, link: Link) -> None:
        super().__init__(host.shard, link)
        self.link = link
        self.open: set[int] = set()
        self._host = host

    def on_messages(self, messages: list[Any]) -> None:
        hosts = self._host.shard.hosts
        ours = []
        for message in messages:
            if type(message) is Forward and message.partition not in hosts:
                self._pass_on(message)
            elif type(message) is not Ask or not self._is_answered(message):
                ours.append(message)
        if ours:
            super().on_messages(ours)

    def on_closed(self) -> None:
        super().on_closed()
        self._host.router.forget(self.open)

    def _pass_on(self, message: Forward) -> None:
        router, partition = self._host.router, message.partition
        if refusal := self._refusal(partition):
            self.link.send(Answer(message.seq, refusal=refusal))
            return
        seq = router.number()
        request = Raw(msgspec.json.encode(message.request))
        raw = ForwardRaw(
            seq, partition, message.origin, message.instance_id, request, message.wants_end
        )
        is_wait = isinstance(message.request, Wait)
        router.send(seq, PendingCall(self, message.seq, raw, is_wait=is_wait))

    def _refusal(self, partition: int) -> Refusal | None:
        reach = self._host.reach
        if why := reach.why(partition):
            # If it passes soon, the client tries again by itself.
            kind = PartitionUnreachable if reach.will_last(partition) else PartitionUnavailable
            return Refusal(kind.code, why, RETRY_AFTER_S)
        if not self._host.router.has_room(self.open):
            return Refusal(Overloaded.code, "too many calls", OVERLOADED_RETRY_AFTER_S)
        return None

    def _is_answered(self, ask: Ask) -> bool:
        """Answer what is about the cluster, for there is no supervisor."""
        try:
            question = _decode_question(ask.question)
        except msgspec.MsgspecError:
            return False  # the shard says what is wrong with it
        if isinstance(question, Cluster):
            facts: object = self._host.describe()
        elif isinstance(question, Metrics):
            facts = self._host.samples()
        elif isinstance(question, HostHealth):
            facts = self._host.health()
        else:
            return False
        self.link.send(Answer(ask.seq, Raw(msgspec.json.encode(facts))))
        return True
