"""The HTTP API of Azure Durable Functions, for clients, scripts and dashboards that speak it.

Everything under `ROOT` is one application that reads the path by itself: Azure's route words do
not distinguish case, a wrong method is a 404, and ids may hold an encoded slash. Every answer is
empty or JSON, because Azure's own clients parse whatever comes. What is answered with 202 is
durable. ``taskHub`` and ``connection`` are accepted and mean nothing: there is one hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.requests import Request
from starlette.routing import Route

from shardrt.http.azure_entities import AzureEntities
from shardrt.http.azure_instances import AzureInstances
from shardrt.http.azure_queries import Limits, empty
from shardrt.http.azure_shapes import ROOT
from shardrt.http.problems import problem

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from shardrt.http.caller import Caller


class AzureApi:
    """Answers every request under `ROOT`; an ASGI application."""

    def __init__(
        self, caller: Caller, *, payload_bytes_max: int, json_depth_max: int, page_size_max: int
    ) -> None:
        limits = Limits(payload_bytes_max, json_depth_max, page_size_max)
        self._instances = AzureInstances(caller, limits)
        self._entities = AzureEntities(caller, limits)

    def routes(self) -> list[Route]:
        return [Route(ROOT + "/{path:path}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answered = self._answer(request, _parts(scope))
        response = problem(404, "no such route") if answered is None else await answered
        await response(scope, receive, send)

    def _answer(self, request: Request, parts: list[str]) -> Awaitable[Response] | None:
        first, rest = parts[0].lower() if parts else "", parts[1:]
        if first == "instances":
            return self._of_instances(request, rest)
        if first == "entities":
            return self._of_entities(request, rest)
        match request.method, first, rest:
            case "POST", "orchestrators", [name]:
                return self._instances.start(request, name)
            case "POST", "orchestrators", [name, instance_id]:
                return self._instances.start(request, name, instance_id)
            case "POST", "makeprimary", []:
                return _nothing_to_do()
            case _:
                return None

    def _of_instances(self, request: Request, rest: list[str]) -> Awaitable[Response] | None:
        api = self._instances
        match request.method, rest:
            case "GET", []:
                return api.list_instances(request)
            case "DELETE", []:
                return api.purge_instances(request)
            case "GET", [instance_id]:
                return api.status(request, instance_id)
            case "DELETE", [instance_id]:
                return api.purge(instance_id)
            case "POST", [instance_id, word, *more]:
                return self._steered(request, instance_id, word.lower(), more)
            case _:
                return None

    def _steered(
        self, request: Request, instance_id: str, word: str, more: list[str]
    ) -> Awaitable[Response] | None:
        api = self._instances
        if word == "raiseevent" and len(more) == 1:
            return api.raise_event(request, instance_id, more[0])
        steer = {
            "terminate": api.terminate,
            "suspend": api.suspend,
            "resume": api.resume,
            "rewind": api.rewind,
            "restart": api.restart,
        }
        return steer[word](request, instance_id) if word in steer and not more else None

    def _of_entities(self, request: Request, rest: list[str]) -> Awaitable[Response] | None:
        api = self._entities
        match request.method, rest:
            case "GET", []:
                return api.list_entities(request, None)
            case "GET", [name]:
                return api.list_entities(request, name)
            case "GET", [name, key]:
                return api.state(name, key)
            case "POST", [name, key]:
                return api.signal(request, name, key)
            case "DELETE", [name, key]:
                return api.delete(name, key)
            case _:
                return None


async def _nothing_to_do() -> Response:
    return empty(200)


def _parts(scope: Scope) -> list[str]:
    """Return the path below `ROOT`, cut at its slashes before these are decoded."""
    raw = scope.get("raw_path") or scope["path"].encode()
    below = raw.decode("latin-1").partition("?")[0].partition(ROOT + "/")[2]
    parts = [unquote(part) for part in below.split("/")]
    if parts[-1] == "":
        parts.pop()  # ``instances/`` is what the clients ask for
    return parts
