"""Entities over plain HTTP: look at them, list them, signal and call their operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.client.entities import entity_filter, entity_page
from shardrt.core import requests as r
from shardrt.core.entity import entity_id
from shardrt.core.history import NULL
from shardrt.errors import InstanceNotFound, PayloadTooLarge
from shardrt.http import answers as a
from shardrt.http.bodies import parse, read_body
from shardrt.http.operations import Operation, Parameter
from shardrt.http.problems import BadRequest, json_response
from shardrt.http.shapes import iso, micros_of
from shardrt.links.frames import ENVELOPE_BYTES_MAX

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.core.requests import EntitySnapshot
    from shardrt.http.caller import Caller

ROOT = "/runtime/entities"
PAGE_SIZE = 100


class OperationBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Of a signal or call."""

    input: Raw = msgspec.field(default_factory=lambda: NULL)
    at: str | None = None
    """Not before this time; for signals only."""
    wait: bool = False
    """Call, and answer with the result."""


class EntityApi:
    """The operations. Each method answers one of them."""

    def __init__(
        self, caller: Caller, *, payload_bytes_max: int, json_depth_max: int, page_size_max: int
    ) -> None:
        self._caller = caller
        self._payload_bytes_max = payload_bytes_max
        self._json_depth_max = json_depth_max
        self._page_size_max = page_size_max

    def operations(self) -> list[Operation]:
        one = ROOT + "/{name}/{key:path}"
        return [
            Operation(
                method="GET",
                path=ROOT,
                name="listEntities",
                summary="List entities, by pages",
                answer=self.list_entities,
                parameters=(
                    Parameter("name", "Of the entity's kind"),
                    Parameter("prefix", "What keys begin with"),
                    Parameter("top", "How many at most", int),
                    Parameter("continuationToken", "Of the page before"),
                ),
                answers={200: a.EntityPage},
            ),
            Operation(
                method="POST",
                path=one + "/{operation}",
                name="operateEntity",
                summary="Signal an entity, or call it and wait for the result",
                answer=self.operate,
                body=OperationBody,
                answers={200: a.EntityResult, 202: a.EntityDone, 422: a.EntityFailure},
                refusals=(409,),
            ),
            Operation(
                method="GET",
                path=one,
                name="getEntity",
                summary="Look at an entity",
                answer=self.get_entity,
                answers={200: a.Entity},
                refusals=(409,),
            ),
            Operation(
                method="DELETE",
                path=one,
                name="purgeEntity",
                summary="Delete an entity",
                answer=self.purge_entity,
                answers={200: a.EntitiesDeleted},
                refusals=(409,),
            ),
        ]

    async def get_entity(self, request: Request) -> Response:
        instance_id = _entity_id(request)
        found: Any = await self._caller.call(instance_id, r.GetEntity())
        if found is None or not found.exists:
            raise InstanceNotFound(f"no entity {instance_id!r}")
        return json_response(entity_shape(found))

    async def operate(self, request: Request) -> Response:
        raw = await read_body(request, self._payload_bytes_max + ENVELOPE_BYTES_MAX)
        body: OperationBody = parse(raw, OperationBody, self._json_depth_max)
        size = memoryview(body.input).nbytes
        if size > self._payload_bytes_max:
            raise PayloadTooLarge(f"input of {size} bytes exceeds {self._payload_bytes_max}")
        instance_id, name = _entity_id(request), request.path_params["operation"]
        if not body.wait:
            signal = r.SignalEntity(name, body.input, micros_of(body.at, "at"))
            await self._caller.call(instance_id, signal)
            return json_response({"entityId": instance_id}, 202)
        if body.at is not None:
            raise BadRequest("at is for signals: nobody waits until then")
        reply: Any = await self._caller.call(instance_id, r.CallEntity(name, body.input))
        if reply.failure is not None:
            return json_response({"entityId": instance_id, "failure": reply.failure}, 422)
        return json_response({"entityId": instance_id, "result": reply.result})

    async def purge_entity(self, request: Request) -> Response:
        instance_id = _entity_id(request)
        purged: Any = await self._caller.call(instance_id, r.Purge())
        if not purged.count:
            raise InstanceNotFound(f"no entity {instance_id!r}")
        return json_response({"entitiesDeleted": purged.count})

    async def list_entities(self, request: Request) -> Response:
        given = request.query_params
        top = given.get("top") or str(min(PAGE_SIZE, self._page_size_max))
        if not top.isdecimal() or not 0 < int(top[:9]) <= self._page_size_max:
            raise BadRequest(f"top must be a number from 1 to {self._page_size_max}")
        where = entity_filter(given.get("name") or None, given.get("prefix", ""))
        token = given.get("continuationToken") or None
        page = await entity_page(self._caller, where, int(top), token)
        shapes = [entity_shape(each) for each in page.entities if each.exists]
        return json_response({"entities": shapes, "continuationToken": page.token})


def entity_shape(entity: EntitySnapshot) -> dict[str, Any]:
    """Return an entity as an object."""
    shape: dict[str, Any] = {
        "entityId": entity.instance_id,
        "name": entity.name,
        "key": entity.key,
        "state": entity.state,
        "createdTime": iso(entity.created_at),
        "lastUpdatedTime": iso(entity.updated_at),
        "lockedBy": entity.locked_by,
        "backlog": entity.backlog,
        "partition": entity.partition,
    }
    if entity.reason:
        shape["reason"] = entity.reason
    return shape


def _entity_id(request: Request) -> str:
    name = request.path_params["name"]
    if "@" in name:
        raise InstanceNotFound("no entity can have that name")
    return entity_id(name, request.path_params["key"])
