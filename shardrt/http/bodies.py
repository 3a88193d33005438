"""Request bodies: JSON, within limits, which are checked while the body is still arriving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL
from shardrt.core.json_text import is_deeper
from shardrt.errors import PayloadTooLarge
from shardrt.http.problems import BadRequest

if TYPE_CHECKING:
    from starlette.requests import Request

DEPTH_MAX = 100


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body.

    Raises:
        PayloadTooLarge: it is longer; known as soon as the header or the bytes say so.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise PayloadTooLarge(f"body of {announced} bytes exceeds {bytes_max}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise PayloadTooLarge(f"body exceeds {bytes_max} bytes")
    return bytes(body)


def parse(body: bytes, kind: Any, depth_max: int = DEPTH_MAX) -> Any:
    """Return a body as that type; an empty one is an empty object.

    Raises:
        BadRequest: it is no JSON, nested too deeply, or not of the type.
    """
    if not body.strip():
        body = b"{}"
    if is_deeper(body, depth_max):
        raise BadRequest(f"JSON nested more than {depth_max} deep")
    try:
        body.decode()  # payloads are spliced through, and nobody else looks at their text
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise BadRequest(f"body is not UTF-8: {error.reason} at byte {error.start}") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRequest(f"malformed JSON body: {error}") from None


def _null() -> Raw:
    return NULL  # made by a function: the schema cannot show it as a default


class StartBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Of a start."""

    input: Raw = msgspec.field(default_factory=_null)
    instance_id: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None
    start_at: str | None = None
    on_conflict: str = "fail"


class EventBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Of an external event."""

    event_data: Raw = msgspec.field(default_factory=_null)


class ReasonBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Of what is done to an instance from outside."""

    reason: str = ""
    recursive: bool = True
