"""The HTTP-triggered functions of an Azure app, as an ASGI application."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import TYPE_CHECKING, Any

import azure.functions as func
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from shardrt.compat.azure.client import azure_api, client_over
from shardrt.compat.azure.registering import functions_of
from shardrt.config import LimitSettings, Tokens
from shardrt.config.tokens import Access
from shardrt.errors import Forbidden, ShardrtError, Unauthorized
from shardrt.http import problems
from shardrt.http.bodies import read_body
from shardrt.http.token import READ_ONLY, SAFE_METHODS, access_of, key_access_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from shardrt.http.caller import Caller

PREFIX = "/api"
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
_PARAMETER = re.compile(r"\{(\*?)(\w+)(?::[^}?]*)?(\??)\}")


def functions_app(
    azure_app: Any,
    caller: Caller,
    *,
    tokens: Tokens | None = None,
    prefix: str = PREFIX,
    limits: LimitSettings | None = None,
) -> ASGIApp:
    """Return what Azure's host serves: the app's HTTP functions, and the HTTP API beside them.

    Args:
        azure_app: a `df.DFApp` or `func.FunctionApp`.
        caller: a `Client` of the hub in which the app is served.
        tokens: of which one must be presented, as bearer token or in Azure's ways, to everything
            but anonymous functions. One that may only read is not for functions.
        prefix: of all routes of functions.
        limits: of what is taken from outside.
    """
    limits, tokens = limits or LimitSettings(), tokens or Tokens()
    api = azure_api(caller, limits)
    routes: list[Route | Mount] = []
    for function in functions_of(azure_app):
        trigger = function.get_trigger()
        if trigger.get_binding_name() != "httpTrigger":
            continue
        keys = Tokens() if trigger.auth_level is func.AuthLevel.ANONYMOUS else tokens
        endpoint = _endpoint(function, api, limits.payload_bytes_max, keys)
        methods = [each.value for each in trigger.methods or ()] or METHODS
        route = trigger.route or function.get_function_name()
        routes += [
            Route(path, endpoint, methods=methods)
            for path in paths_of(f"{prefix.rstrip('/')}/{route.lstrip('/')}")
        ]
    routes.append(Mount("/", _KeyRequired(api, tokens)))
    handlers = {ShardrtError: problems.on_refused, Exception: problems.on_bug}
    return Starlette(routes=routes, exception_handlers=handlers)


class _KeyRequired:
    """Lets nothing through that the token does not allow."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_key(scope, self._tokens, may_read=scope["method"] in SAFE_METHODS)
        await self._app(scope, receive, send)


def _check_key(scope: Scope, tokens: Tokens, *, may_read: bool) -> None:
    access = access_of(scope, tokens) or key_access_of(scope, tokens)
    if access is None:
        raise Unauthorized("the key is missing or wrong")
    if access is Access.READ and not may_read:
        raise Forbidden(READ_ONLY)


def paths_of(route: str) -> list[str]:
    """Return a route of Azure's as ours: without types, and one for each optional end."""
    optional = re.search(r"/\{\w+(?::[^}?]*)?\?\}$", route)
    plain = _PARAMETER.sub(lambda found: f"{{{found[2]}{':path' if found[1] else ''}}}", route)
    return [plain] if optional is None else [*paths_of(route[: optional.start()]), plain]


def _endpoint(
    function: Any, api: ASGIApp, bytes_max: int, tokens: Tokens
) -> Callable[[Request], Awaitable[Response]]:
    user_code, trigger = function.get_user_function(), function.get_trigger()
    clients = [
        each.name for each in function.get_bindings() if each.get_binding_name() == "durableClient"
    ]
    # Azure's decorator wraps the function into one that makes a client of a text.
    user_code = getattr(user_code, "client_function", user_code)

    async def endpoint(request: Request) -> Response:
        # A function may do anything, whatever the method.
        _check_key(request.scope, tokens, may_read=False)
        asked = func.HttpRequest(
            request.method,
            str(request.url),
            headers=dict(request.headers),
            params=dict(request.query_params),
            route_params={k: str(v) for k, v in request.path_params.items()},
            body=await read_body(request, bytes_max),
        )
        given: dict[str, Any] = {trigger.name: asked}
        given |= {name: client_over(api, str(request.base_url)) for name in clients}
        if inspect.iscoroutinefunction(user_code):
            return _response(await user_code(**given))
        return _response(await asyncio.to_thread(user_code, **given))

    return endpoint


def _response(returned: Any) -> Response:
    if isinstance(returned, str):
        return Response(returned, media_type="text/plain")
    if returned is None:
        return Response(status_code=204)
    headers = dict(returned.headers.items())
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = f"{returned.mimetype}; charset={returned.charset}"
    return Response(returned.get_body(), returned.status_code, headers)
