"""Looking at JSON text without decoding it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msgspec import Raw

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPEN = frozenset(b"[{")
_CLOSE = frozenset(b"]}")


def is_deeper(text: bytes | Raw, depth_max: int) -> bool:
    """Whether arrays and objects are nested in each other more than so many times.

    Decoders recurse, and every envelope around a payload takes some of what they can bear: a
    payload that was accepted must never become unreadable inside a record.
    """
    body = bytes(text)
    # Counting is fast, and enough for nearly everything.
    if body.count(b"[") + body.count(b"{") <= depth_max:
        return False
    depth = 0
    for byte in _STRINGS.sub(b"", body):
        if byte in _OPEN:
            depth += 1
            if depth > depth_max:
                return True
        elif byte in _CLOSE:
            depth -= 1
    return False
