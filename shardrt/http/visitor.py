"""One client's link, as the gateway sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.client.wire import TypedAsk, TypedCall
from shardrt.core.requests import Refusal
from shardrt.errors import ProtocolViolation
from shardrt.links.messages import Answer, Ask, Call, Hello

if TYPE_CHECKING:
    from shardrt.http.gateway import Gateway
    from shardrt.links.base import Link

SESSION_ID_CHARS_MAX = 64


class Visitor:
    """Listens to one client and hands its calls to the gateway."""

    def __init__(self, gateway: Gateway, link: Link) -> None:
        self.link = link
        self.session_id = ""
        """What its `Hello` said; empty before."""
        self.open: set[int] = set()
        """The gateway's numbers of its calls under way."""
        self._gateway = gateway

    def on_messages(self, messages: list[Any]) -> None:
        gateway = self._gateway
        for message in messages:
            if type(message) is Call and self.session_id:
                gateway.forward(self, message)
            elif isinstance(message, Hello):
                self._greet(message)
            elif isinstance(message, Ask) and self.session_id:
                gateway.ask(self, message)
            else:
                raise ProtocolViolation("the first message must be a hello")

    def on_closed(self) -> None:
        self._gateway.leave(self)

    def answer(self, seq: int, result: Raw) -> None:
        self.link.send(Answer(seq, result))

    def refuse(self, seq: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        self.link.send(Answer(seq, refusal=Refusal(code, message, retry_after_s)))

    def _greet(self, hello: Hello) -> None:
        if not 0 < len(hello.client) <= SESSION_ID_CHARS_MAX:
            raise ProtocolViolation(f"session ids have 1 to {SESSION_ID_CHARS_MAX} characters")
        self.session_id = hello.client
        self.link.send(self._gateway.welcome)
        if hello.wants_serving:
            self._gateway.announcer.join(self.link)


class TypedVisitor(Visitor):
    """A client in this process, whose messages were never encoded."""

    def on_messages(self, messages: list[Any]) -> None:
        super().on_messages([_encoded(message) for message in messages])


def _encoded(message: Any) -> Any:
    if isinstance(message, TypedCall):
        request = Raw(msgspec.json.encode(message.request))
        return Call(message.seq, message.low, message.instance_id, request, message.wants_end)
    if isinstance(message, TypedAsk):
        return Ask(message.seq, Raw(msgspec.json.encode(message.question)))
    return message
