"""Whether this host lives, and whether to send it requests. Neither touches the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from shardrt.http.problems import json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

PATHS = ("/health/live", "/health/ready")


def health_routes(readiness: Callable[[], tuple[bool, dict[str, Any]]]) -> list[Route]:
    """Return the routes; `readiness` says whether it is ready, and facts about it."""

    async def live(_: Request) -> Response:
        return json_response({"status": "live"})

    async def ready(_: Request) -> Response:
        is_ready, facts = readiness()
        status = "ready" if is_ready else "not ready"
        return json_response(
            {"status": status, "message": status, **facts}, 200 if is_ready else 503
        )

    return [Route(PATHS[0], live, methods=["GET"]), Route(PATHS[1], ready, methods=["GET"])]
