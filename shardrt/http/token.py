"""The bearer token that clients must present, if the host asks for one."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

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
