"""``/openapi.json``: every operation with what it takes and answers, made from their table."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import compile_path

from shardrt import __version__
from shardrt.http.operations import Operation, Parameter
from shardrt.http.problems import json_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/openapi.json"
BEARER, CODE, KEY = "bearer", "code", "functionsKey"
_SCHEMES = {
    BEARER: {"type": "http", "scheme": "bearer"},
    CODE: {"type": "apiKey", "in": "query", "name": "code"},
    KEY: {"type": "apiKey", "in": "header", "name": "x-functions-key"},
}


def openapi(operations: Sequence[Operation]) -> Operation:
    """Return the operation that answers with the document of these and of itself."""

    @cache  # made when somebody asks: hardly anybody does
    def made() -> dict[str, Any]:
        return document([*operations, itself])

    async def answer(_: Request) -> Response:
        return json_response(made())

    itself = Operation(
        method="GET",
        path=PATH,
        name="openapi",
        summary="This document",
        answer=answer,
        answers={200: dict[str, Any]},
    )
    return itself


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of these operations."""
    types = list(_types(operations))
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        _, template, convertors = compile_path(each.path)
        described = _described(each, list(convertors), lambda kind: by_type[repr(kind)])
        paths.setdefault(template, {})[each.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "shardrt", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
        "security": [{BEARER: []}],
    }


def _types(operations: Iterable[Operation]) -> Iterable[Any]:
    for each in operations:
        yield str
        yield from (parameter.kind for parameter in each.parameters)
        yield from (kind for kind in each.all_answers().values() if kind is not None)
        if each.body is not None:
            yield each.body


def _described(operation: Operation, in_path: list[str], schema: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *(_of_path(name, schema) for name in in_path),
            *(_parameter(each, schema) for each in operation.parameters),
        ],
        "responses": {
            str(status): _response(status, kind, operation, schema)
            for status, kind in operation.all_answers().items()
        },
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.needs_body,
            "content": {"application/json": {"schema": schema(operation.body)}},
        }
    if operation.is_open:
        described["security"] = []
    elif operation.key_schemes:
        described["security"] = [{name: []} for name in (BEARER, *operation.key_schemes)]
    return described


def _of_path(name: str, schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema(str) | {"minLength": 1},
    }


def _parameter(given: Parameter, schema: Any) -> dict[str, Any]:
    kind = schema(given.kind)
    return {
        "name": given.name,
        "in": given.place,
        "description": given.what,
        "schema": {"type": "array", "items": kind} if given.is_list else kind,
    }


def _response(status: int, kind: Any, operation: Operation, schema: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if kind is not None:
        media_type = operation.media_type if status in operation.answers else "application/json"
        described["content"] = {media_type: {"schema": schema(kind)}}
    return described
