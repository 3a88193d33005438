"""What a request or handshake may do, by the token that it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from shardrt.config.tokens import Access, Tokens
from shardrt.core import requests as r
from shardrt.errors import Forbidden
from shardrt.links.messages import Answer, Call

if TYPE_CHECKING:
    from starlette.types import Scope

    from shardrt.links.base import Link, LinkHandler

MISSING = "the token is missing or wrong"
READ_ONLY = "this token may only read"
SAFE_METHODS = frozenset(("GET", "HEAD"))
"""Methods by which no route changes anything."""

_PREFIX = b"bearer "
_READS = (
    r.Get | r.GetHistory | r.Export | r.Wait | r.GetEntity | r.Explain | r.GetSlot
)  # those that `core.requests` says change nothing
_decode_request = msgspec.json.Decoder(r.Request).decode


def access_of(scope: Scope, tokens: Tokens) -> Access | None:
    """Return what the bearer token allows; None: nothing."""
    given = dict(scope["headers"]).get(b"authorization", b"")
    is_bearer = given[: len(_PREFIX)].lower() == _PREFIX
    return tokens.access(given[len(_PREFIX) :].strip() if is_bearer else b"")


def key_access_of(scope: Scope, tokens: Tokens) -> Access | None:
    """Return the same for the ways of Azure's callers: ``?code=``, or in a header."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    given = [dict(scope["headers"]).get(b"x-functions-key", b"")]
    given += [code.encode() for code in query.get("code", ())]
    allowed = [tokens.access(each) for each in given]
    return Access.FULL if Access.FULL in allowed else max(allowed, key=bool)


class ReadOnly:
    """Listens for somebody who may only read, and refuses all else."""

    def __init__(self, handler: LinkHandler, link: Link) -> None:
        self.on_closed = handler.on_closed
        self._handler = handler
        self._link = link

    def on_messages(self, messages: list[Any]) -> None:
        self._handler.on_messages([each for each in messages if self._passes(each)])

    def _passes(self, message: Any) -> bool:
        if type(message) is not Call or is_read(message.request):
            return True  # questions change nothing
        self._link.send(Answer(message.seq, refusal=r.Refusal(Forbidden.code, READ_ONLY)))
        return False


def is_read(request: msgspec.Raw) -> bool:
    """Return whether a request is one that changes nothing; what is no request is none."""
    try:
        return isinstance(_decode_request(request), _READS)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
