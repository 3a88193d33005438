"""Errors as HTTP answers: ``{"message": …}`` with the status that fits, never a traceback."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shardrt import errors

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger(__name__)

STATUS = {
    errors.InputInvalid: 400,
    errors.ConfigInvalid: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.InstanceNotFound: 404,
    errors.OrchestratorNotRegistered: 404,
    errors.EntityNotRegistered: 404,
    errors.SchedulingVetoed: 403,
    errors.InstanceExists: 409,
    errors.InstanceNotFinished: 409,
    errors.InstanceNotFailed: 409,
    errors.InstanceQuarantined: 409,
    errors.AnswerForgotten: 409,
    errors.InstanceFinished: 410,
    errors.PayloadTooLarge: 413,
    errors.Overloaded: 429,
    errors.PartitionUnavailable: 503,
    errors.ConnectionLost: 503,
    errors.StoreUnavailable: 503,
}

RETRY_AFTER_S = 1.0


class BadRequest(errors.ShardrtError):
    """The request itself is wrong, whatever it is about."""

    code = "BadRequest"


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a value as JSON; `Raw` payloads in it are spliced as they are."""
    body = msgspec.json.encode(value)
    return Response(body, status, headers, media_type="application/json")


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return json_response({"message": message}, status, headers)


def on_refused(_: Request, error: Exception) -> Response:
    """Answer what was refused."""
    assert isinstance(error, errors.ShardrtError)
    if isinstance(error, BadRequest):
        return problem(400, str(error))
    status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), 500)
    headers = {}
    if status in (429, 503):
        retry_after_s = getattr(error, "retry_after_s", RETRY_AFTER_S)
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status == 413:
        headers["Connection"] = "close"  # the rest of the body may be endless
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 500:
        logger.error("request failed: %s: %s", error.code, error)
    return problem(status, str(error), headers)


def on_http_exception(_: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, dict(error.headers or {}))


def on_bug(_: Request, error: Exception) -> Response:
    """Answer what should not happen; the traceback is for the log."""
    logger.error("request failed", exc_info=error)
    return problem(500, "internal error; the log of the host has the details")
