"""Limits over plain HTTP: how many are at work, and how many wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.client.limits import PAGE_SIZE, limit_page
from shardrt.core.limiter import limit_and_key
from shardrt.http import answers as a
from shardrt.http.operations import Operation, Parameter
from shardrt.http.problems import BadRequest, json_response
from shardrt.http.shapes import iso

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.http.caller import Caller
    from shardrt.links.admin import LimitSnapshot

ROOT = "/runtime/limits"


class LimitApi:
    """The operation."""

    def __init__(self, caller: Caller, *, page_size_max: int) -> None:
        self._caller = caller
        self._page_size_max = page_size_max

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path=ROOT,
                name="listLimits",
                summary="List limits with their queues, by pages",
                answer=self.list_limits,
                parameters=(
                    Parameter("name", "Of the limit"),
                    Parameter("top", "How many at most", int),
                    Parameter("continuationToken", "Of the page before"),
                ),
                answers={200: a.LimitPage},
            )
        ]

    async def list_limits(self, request: Request) -> Response:
        given = request.query_params
        top = given.get("top") or str(min(PAGE_SIZE, self._page_size_max))
        if not top.isdecimal() or not 0 < int(top[:9]) <= self._page_size_max:
            raise BadRequest(f"top must be a number from 1 to {self._page_size_max}")
        token = given.get("continuationToken") or None
        page = await limit_page(self._caller, given.get("name") or None, int(top), token)
        shapes = [limit_shape(each) for each in page.limits]
        return json_response({"limits": shapes, "continuationToken": page.token})


def limit_shape(found: LimitSnapshot) -> dict[str, Any]:
    """Return a limit as an object."""
    name, key = limit_and_key(found.limiter_id)
    numbers = found.numbers
    shape: dict[str, Any] = {
        "limiterId": found.limiter_id,
        "name": name,
        "key": key,
        "concurrency": numbers.concurrency,
        "rate": numbers.rate,
        "per": None if numbers.rate is None else numbers.per / 1e6,
        "holders": found.holders,
        "waiting": found.waiting,
        "waitingSince": iso(found.waiting_since),
        "nextTime": iso(found.next_at),
        "partition": found.partition,
    }
    if found.reason:
        shape["reason"] = found.reason
    return shape
