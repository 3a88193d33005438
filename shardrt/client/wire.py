"""Messages of `links.messages` as the client makes them: with the request itself in them.

On the wire they are the same as `Call` and `Ask`; within a process nothing needs encoding.
"""

from __future__ import annotations

from typing import final

import msgspec

from shardrt.core.requests import Request
from shardrt.links.admin import Question


class TypedCall(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="call"):
    """`Call`, before it is encoded."""

    seq: int
    low: int
    instance_id: str
    request: Request
    wants_end: bool = False


@final
class TypedAsk(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ask"):
    """`Ask`, before it is encoded."""

    seq: int
    question: Question
