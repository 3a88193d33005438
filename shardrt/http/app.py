"""The ASGI application: management API, health, and the clients' link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, WebSocketRoute

from shardrt.config import LimitSettings, Tokens
from shardrt.config.tokens import Access
from shardrt.errors import ShardrtError
from shardrt.http import health, problems
from shardrt.http.azure import AzureApi
from shardrt.http.azure_queries import CONTINUATION
from shardrt.http.azure_shapes import ROOT as AZURE_ROOT
from shardrt.http.entities import EntityApi
from shardrt.http.limits import LimitApi
from shardrt.http.link import LinkEndpoint, PeerDoor, PeerEndpoint
from shardrt.http.management import ManagementApi
from shardrt.http.metrics import MetricsApi
from shardrt.http.openapi import openapi
from shardrt.http.schedules import ScheduleApi
from shardrt.http.token import MISSING, READ_ONLY, SAFE_METHODS, access_of, key_access_of
from shardrt.http.tracing import Joined, Managed
from shardrt.links.peer import HOST_PATH
from shardrt.links.websocket import PATH

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from shardrt.http.caller import Caller
    from shardrt.links.base import Accept
    from shardrt.tracing.tracer import Tracer

CORS_METHODS = ("GET", "POST", "PUT", "DELETE")
CORS_HEADERS = ("Authorization", "Content-Type", CONTINUATION, "x-functions-key")


def build_app(  # noqa: PLR0913 - what a host has
    caller: Caller,
    *,
    accept: Accept | None = None,
    peers: PeerDoor | None = None,
    readiness: Callable[[], tuple[bool, dict[str, Any]]] = lambda: (True, {}),
    tokens: Tokens | None = None,
    limits: LimitSettings | None = None,
    host_id: str = "",
    cors_origins: str = "",
    tracer: Callable[[], Tracer | None] = lambda: None,
) -> ASGIApp:
    """Return the application of a host.

    Args:
        caller: answers what the API asks.
        accept: who listens to clients' links (`Gateway.accept`); None: there is no ``/link``.
        peers: where other hosts come in; None: they cannot.
        readiness: whether requests lead anywhere from here, and facts about it.
        tokens: of which clients must present one as bearer token, except for health.
        limits: of what is taken from outside.
        host_id: of this host, for metrics.
        cors_origins: whose pages may call this from a browser, with commas between them.
        tracer: what requests are traced with, if at all.
    """
    caller = Managed(caller, tracer)
    limits, tokens = limits or LimitSettings(), tokens or Tokens()
    bounds = {
        "payload_bytes_max": limits.payload_bytes_max,
        "json_depth_max": limits.json_depth_max,
    }
    paged = bounds | {"page_size_max": limits.page_size_max}
    azure = AzureApi(caller, **paged)
    operations = [
        *ManagementApi(caller, **paged).operations(),
        *EntityApi(caller, **paged).operations(),
        *ScheduleApi(caller, **bounds).operations(),
        *LimitApi(caller, page_size_max=limits.page_size_max).operations(),
        *MetricsApi(caller, host_id).operations(),
        *health.HealthApi(caller, readiness, host_id).operations(),
    ]
    operations.append(openapi([*operations, *azure.operations()]))
    routes: list[BaseRoute] = [*(each.route() for each in operations), *azure.routes()]
    if accept is not None:
        endpoint = LinkEndpoint(accept, tokens, limits.payload_bytes_max)
        routes.append(WebSocketRoute(PATH, endpoint))
    if peers is not None:
        peer_endpoint = PeerEndpoint(peers, tokens, limits.payload_bytes_max)
        routes.append(WebSocketRoute(HOST_PATH, peer_endpoint))
    app = Starlette(
        routes=routes,
        exception_handlers={
            ShardrtError: problems.on_refused,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_bug,
        },
    )
    guarded = _TokenRequired(Joined(app, tracer), tokens)
    origins = [origin.strip() for origin in cors_origins.split(",") if origin.strip()]
    # Outside: a browser asks without a token whether it may ask with one.
    return CORSMiddleware(guarded, origins, CORS_METHODS, CORS_HEADERS) if origins else guarded


class _TokenRequired:
    """Lets nothing through that the token does not allow but health checks.

    Links check it themselves.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self.app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass on."""
        # Mounted into another application, the path begins with where that is.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in health.PATHS:
            await self.app(scope, receive, send)
            return
        access = access_of(scope, self._tokens)
        if access is None and AZURE_ROOT + "/" in scope["path"]:
            access = key_access_of(scope, self._tokens)
        if access is None:
            refused = problems.problem(401, MISSING, {"WWW-Authenticate": "Bearer"})
            await refused(scope, receive, send)
        elif access is Access.READ and scope["method"] not in SAFE_METHODS:
            await problems.problem(403, READ_ONLY)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
