"""Whether this host lives, and whether to send it requests. Neither touches the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.http.answers import Health
from shardrt.http.operations import Operation
from shardrt.http.problems import json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

PATHS = ("/health/live", "/health/ready")


def operations(readiness: Callable[[], tuple[bool, dict[str, Any]]]) -> list[Operation]:
    """Return the operations; `readiness` says whether it is ready, and facts about it."""

    async def live(_: Request) -> Response:
        return json_response({"status": "live"})

    async def ready(_: Request) -> Response:
        is_ready, facts = readiness()
        status = "ready" if is_ready else "not ready"
        return json_response(
            {"status": status, "message": status, **facts}, 200 if is_ready else 503
        )

    return [
        Operation(
            method="GET",
            path=PATHS[0],
            name="live",
            summary="Whether the host lives",
            answer=live,
            answers={200: Health},
            is_open=True,
        ),
        Operation(
            method="GET",
            path=PATHS[1],
            name="ready",
            summary="Whether to send requests here",
            answer=ready,
            answers={200: Health, 503: Health},
            is_open=True,
        ),
    ]
