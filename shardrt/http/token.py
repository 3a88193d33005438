"""The bearer token that clients must present, if the host asks for one."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import Scope

_PREFIX = b"bearer "


def is_allowed(scope: Scope, token: str | None) -> bool:
    """Whether a request or handshake carries the token; compared in constant time."""
    if token is None:
        return True
    given = dict(scope["headers"]).get(b"authorization", b"")
    if given[: len(_PREFIX)].lower() != _PREFIX:
        return False
    return hmac.compare_digest(given[len(_PREFIX) :].strip(), token.encode())


def has_key(scope: Scope, token: str) -> bool:
    """Whether a request carries the token as Azure's callers do: ``?code=``, or in a header."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    given = [dict(scope["headers"]).get(b"x-functions-key", b"")]
    given += [code.encode() for code in query.get("code", ())]
    return any(hmac.compare_digest(each, token.encode()) for each in given)
