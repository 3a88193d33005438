"""The door to the outside: the gateway that routes requests to owners, its link and HTTP API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from shardrt.http.listening import Listener
    from shardrt.runtime import Runtime


def listen(runtime: Runtime) -> Listener:
    """Listen for a runtime, where its settings say."""
    listener: Listener = import_module("shardrt.http.listening").Listener(runtime)
    return listener


def embedded(runtime: Runtime) -> ASGIApp:
    """Return the ASGI application of an embedded runtime, which need not run yet."""
    # Late: whoever wants only a part of this package should not wait for all of it.
    app: ASGIApp = import_module("shardrt.http.embedding").embedded_app(runtime)
    return app


def refused(request: Request, error: Exception) -> Response:
    """Answer a `ShardrtError` as the HTTP API does, in an ASGI program of one's own.

    404 if there is no such instance, 409, 429 and 503 with Retry-After, and so on, with the
    reason as ``{"message": …}``: ``FastAPI(exception_handlers={ShardrtError: refused})``.
    """
    response: Response = import_module("shardrt.http.problems").on_refused(request, error)
    return response
