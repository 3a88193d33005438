"""What requests to the Azure API say in their query and body, read as leniently as Azure does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Raw
from starlette.responses import Response

from shardrt.core.history import NULL
from shardrt.errors import InputInvalid
from shardrt.http.bodies import parse, read_body
from shardrt.http.problems import BadRequest
from shardrt.http.shapes import micros_of

if TYPE_CHECKING:
    from starlette.requests import Request

CONTINUATION = "x-ms-continuation-token"
PAGE_SIZE = 100


class Limits(NamedTuple):
    """Of what is taken from outside."""

    payload_bytes_max: int
    json_depth_max: int
    page_size_max: int


def empty(status: int) -> Response:
    return Response(status_code=status)


def flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a switch; Python's clients write ``True``. What is neither is the default."""
    return {"true": True, "false": False}.get(
        request.query_params.get(name, "").strip().lower(), default
    )


def text_of(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def micros_or_none(request: Request, name: str) -> int | None:
    """Return a time; like Azure, none if it cannot be read."""
    try:
        return micros_of(request.query_params.get(name), name)
    except InputInvalid:
        return None


def seconds(request: Request, name: str) -> float | None:
    """Return a duration; none if it is not given, or no number."""
    try:
        value = float(text_of(request, name))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def page_size(request: Request, limits: Limits) -> int:
    top = text_of(request, "top")
    wanted = int(top[:9]) if top.isdecimal() else 0
    return min(wanted or PAGE_SIZE, limits.page_size_max)


def token_of(request: Request) -> str | None:
    return request.headers.get(CONTINUATION) or None


async def json_body(request: Request, limits: Limits) -> Raw:
    """Return the body as it came, which must be JSON; an empty one is null.

    Raises:
        BadRequest: it is no JSON, or nested too deeply.
        PayloadTooLarge: it is longer than payloads may be.
    """
    body = await read_body(request, limits.payload_bytes_max)
    if not body.strip():
        return NULL
    raw: Raw = parse(body, Raw, limits.json_depth_max)
    return raw


def is_json(request: Request) -> bool:
    """Whether the request says that its body is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == "application/json"


def required_micros(request: Request, name: str) -> int | None:
    """Return a time that decides over deletion: what cannot be read is refused, not ignored."""
    try:
        return micros_of(request.query_params.get(name), name)
    except InputInvalid as error:
        raise BadRequest(str(error)) from None
