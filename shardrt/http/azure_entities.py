"""Entities in the words of Azure's HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.client.entities import entity_filter, entity_page
from shardrt.core import requests as r
from shardrt.core.entity import entity_id
from shardrt.errors import InstanceNotFound
from shardrt.http.azure_queries import (
    CONTINUATION,
    Limits,
    empty,
    flag,
    is_json,
    json_body,
    micros_or_none,
    page_size,
    text_of,
    token_of,
)
from shardrt.http.azure_shapes import entity_shape
from shardrt.http.bodies import read_body
from shardrt.http.problems import BadRequest, json_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.http.caller import Caller

_EMPTY_KEY = "$"


class AzureEntities:
    """Each method answers one route."""

    def __init__(self, caller: Caller, limits: Limits) -> None:
        self._caller = caller
        self._limits = limits

    async def state(self, name: str, key: str) -> Response:
        instance_id = _id(name, key)
        found: Any = await self._caller.call(instance_id, r.GetEntity())
        if found is None or not found.exists:
            raise InstanceNotFound(f"no entity {instance_id!r}")
        return json_response(found.state)

    async def list_entities(self, request: Request, name: str | None) -> Response:
        """Answer a page, from the read model; conditions on times can make it a short one."""
        since = micros_or_none(request, "lastOperationTimeFrom")
        until = micros_or_none(request, "lastOperationTimeTo")
        where = entity_filter(name, "")
        page = await entity_page(
            self._caller, where, page_size(request, self._limits), token_of(request)
        )
        fetch_state = flag(request, "fetchState")
        shapes = [
            entity_shape(each, fetch_state=fetch_state)
            for each in page.entities
            if each.exists
            and (since is None or each.updated_at >= since)
            and (until is None or each.updated_at <= until)
        ]
        return json_response(shapes, headers={CONTINUATION: page.token or ""})

    async def signal(self, request: Request, name: str, key: str) -> Response:
        if is_json(request):
            payload = await json_body(request, self._limits)
        else:
            payload = await self._text(request)
        await self._caller.call(_id(name, key), r.SignalEntity(text_of(request, "op"), payload))
        return empty(202)

    async def delete(self, name: str, key: str) -> Response:
        await self._caller.call(_id(name, key), r.SignalEntity("delete"))
        return empty(202)

    async def _text(self, request: Request) -> Raw:
        body = await read_body(request, self._limits.payload_bytes_max)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"body is not UTF-8: {error.reason}") from None
        return Raw(msgspec.json.encode(text or None))


def _id(name: str, key: str) -> str:
    if not name or "@" in name:
        raise InstanceNotFound("no entity can have that name")
    return entity_id(name, "" if key == _EMPTY_KEY else key)
