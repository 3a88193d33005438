"""Orchestrations in the words of Azure's HTTP API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.client.filters import page_of
from shardrt.client.instance_ids import new_instance_id
from shardrt.client.purging import purge_where
from shardrt.client.starting import check_instance_id
from shardrt.core import requests as r
from shardrt.core.history import FINAL, Status
from shardrt.errors import (
    InputInvalid,
    InstanceFinished,
    InstanceNotFound,
    OrchestratorNotRegistered,
)
from shardrt.http.azure_queries import (
    CONTINUATION,
    Limits,
    empty,
    flag,
    is_json,
    json_body,
    micros_or_none,
    page_size,
    required_micros,
    seconds,
    text_of,
    token_of,
)
from shardrt.http.azure_shapes import history_shape, management_urls, status_shape
from shardrt.http.problems import BadRequest, json_response
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from msgspec import Raw
    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.core.requests import Snapshot
    from shardrt.http.caller import Caller

START_POLL_S = 10
STATUS_POLL_S = 5
"""What clients are told to wait before they look (again)."""
WAIT_S_MAX = 230.0
"""Azure's load balancer gives no answer more time than this."""
POLL_S_MIN = 0.05
_NOT_IN_IDS = frozenset("/\\?#")
_STATUSES = {status.lower(): status for status in Status}
_NEVER_SEEN = "continuedasnew"
"""A status of Azure's that no instance has here."""


class AzureInstances:
    """Each method answers one route."""

    def __init__(self, caller: Caller, limits: Limits) -> None:
        self._caller = caller
        self._limits = limits

    # -- starting -------------------------------------------------------------------------------

    async def start(self, request: Request, name: str, instance_id: str | None = None) -> Response:
        try:
            payload = await json_body(request, self._limits)
        except BadRequest as error:
            return _bad_arguments("Invalid JSON content", error)
        fresh = instance_id is None
        version = text_of(request, "version") or None
        try:
            _check_id(instance_id)
            started: Any = await self._caller.call(
                instance_id or new_instance_id(),
                r.Start(name, payload, version, on_conflict="restart", fresh=fresh),
            )
        except (InputInvalid, OrchestratorNotRegistered) as error:
            return _bad_arguments("One or more of the arguments submitted is incorrect", error)
        return await self._started(request, started.instance_id)

    async def restart(self, request: Request, instance_id: str) -> Response:
        """Run an instance's orchestrator again, as another instance unless told otherwise."""
        found = await self._get(instance_id)
        if found is None:
            text = "InstanceId does not match a valid orchestration instance."
            return _bad_arguments(text, InstanceNotFound(f"no instance {instance_id!r}"))
        if flag(request, "restartWithNewInstanceId", default=True):
            again = r.Start(found.name, found.input, found.version, found.tags, fresh=True)
            started: Any = await self._caller.call(new_instance_id(), again)
        else:
            started = await self._caller.call(instance_id, r.Restart())
        return await self._started(request, started.instance_id)

    async def _started(self, request: Request, instance_id: str) -> Response:
        """Answer where to look; if the query says how long to wait, the output."""
        timeout_s, poll_s = seconds(request, "timeout"), seconds(request, "pollingInterval")
        if timeout_s is not None and poll_s is not None:
            ended = await self._wait(instance_id, timeout_s, poll_s)
            if ended is not None and ended.status is Status.COMPLETED:
                return json_response(ended.output)
            if ended is not None:
                return self._status(request, ended)
        urls = management_urls(request, instance_id)
        headers = {"Location": urls["statusQueryGetUri"], "Retry-After": str(START_POLL_S)}
        return json_response(urls, 202, headers)

    async def _wait(self, instance_id: str, timeout_s: float, poll_s: float) -> Snapshot | None:
        """Return the instance if it ends in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(timeout_s, WAIT_S_MAX)
        while True:
            found = await self._get(instance_id)
            left_s = deadline - loop.time()
            if found is None or found.status.is_final:
                return found
            if left_s <= 0:
                return None
            await asyncio.sleep(min(max(poll_s, POLL_S_MIN), left_s))

    # -- looking --------------------------------------------------------------------------------

    async def status(self, request: Request, instance_id: str) -> Response:
        found = await self._known(instance_id)
        if not flag(request, "showHistory"):
            return self._status(request, found)
        encoded: Any = await self._caller.call(instance_id, r.GetHistory())
        return self._status(request, found, encoded)

    def _status(self, request: Request, found: Snapshot, history: Raw | None = None) -> Response:
        show_input = flag(request, "showInput", default=True)
        shape = status_shape(found, show_input=show_input)
        if history is not None:
            show_output = flag(request, "showHistoryOutput")
            shape["historyEvents"] = list(
                history_shape(history, show_input=show_input, show_output=show_output)
            )
        if not found.status.is_final:
            headers = {"Location": str(request.url), "Retry-After": str(STATUS_POLL_S)}
            return json_response(shape, 202, headers)
        if found.status is Status.FAILED and flag(request, "returnInternalServerErrorOnFailure"):
            return json_response(shape, 500)
        return json_response(shape)

    async def list_instances(self, request: Request) -> Response:
        where = _filter(request)
        if where is None:
            return json_response([], headers={CONTINUATION: ""})
        limit = page_size(request, self._limits)
        page = await page_of(self._caller, where, limit, token_of(request))
        show_input = flag(request, "showInput", default=True)
        shapes = [status_shape(each, show_input=show_input) for each in page.instances]
        return json_response(shapes, headers={CONTINUATION: page.token or ""})

    # -- steering -------------------------------------------------------------------------------

    async def raise_event(self, request: Request, instance_id: str, event: str) -> Response:
        await self._open(instance_id)
        if not is_json(request):
            raise BadRequest("only application/json is taken as the content of an event")
        payload = await json_body(request, self._limits)
        await self._caller.call(instance_id, r.Raise(event, payload))
        return empty(202)

    async def terminate(self, request: Request, instance_id: str) -> Response:
        return await self._done(instance_id, r.Terminate(text_of(request, "reason")))

    async def suspend(self, request: Request, instance_id: str) -> Response:
        return await self._done(instance_id, r.Suspend(text_of(request, "reason")))

    async def resume(self, request: Request, instance_id: str) -> Response:
        return await self._done(instance_id, r.Resume(text_of(request, "reason")))

    async def rewind(self, request: Request, instance_id: str) -> Response:
        found = await self._known(instance_id)
        if found.status.is_final and found.status is not Status.FAILED:
            raise InstanceFinished(f"instance {instance_id!r} has ended: {found.status}")
        if found.status is not Status.FAILED:
            raise BadRequest("only a failed instance can be rewound")
        await self._caller.call(instance_id, r.Rewind(text_of(request, "reason")))
        return empty(202)

    async def _done(self, instance_id: str, wanted: r.Request) -> Response:
        try:
            check_instance_id(instance_id)
        except InputInvalid:
            raise InstanceNotFound("no instance can have that id") from None
        await self._caller.call(instance_id, wanted)
        return empty(202)

    # -- purging --------------------------------------------------------------------------------

    async def purge(self, instance_id: str) -> Response:
        await self._known(instance_id)
        purged: Any = await self._caller.call(instance_id, r.Purge())
        return _deleted(purged.count)

    async def purge_instances(self, request: Request) -> Response:
        if not text_of(request, "createdTimeFrom"):
            return json_response("Please provide value for 'createdTimeFrom' parameter.", 400)
        for name in ("createdTimeFrom", "createdTimeTo"):
            required_micros(request, name)
        if unknown := [each for each in _words(request) if each not in _STATUSES]:
            raise BadRequest(f"runtimeStatus: no status {unknown[0]!r}")
        where = _filter(request)
        assert where is not None, "all its statuses are known"
        ends = set(where.status or FINAL) & set(FINAL)
        if not ends:
            return _deleted(0)
        ended = Filter(
            status=tuple(sorted(ends)),
            id_prefix=where.id_prefix,
            created_from=where.created_from,
            created_to=where.created_to,
        )
        return _deleted(await purge_where(self._caller, ended))

    # -------------------------------------------------------------------------------------------

    async def _get(self, instance_id: str) -> Snapshot | None:
        try:
            check_instance_id(instance_id)
        except InputInvalid:
            return None  # nobody can have that id
        found: Any = await self._caller.call(instance_id, r.Get())
        return found  # type: ignore[no-any-return]

    async def _known(self, instance_id: str) -> Snapshot:
        found = await self._get(instance_id)
        if found is None:
            raise InstanceNotFound(f"no instance {instance_id!r}")
        return found

    async def _open(self, instance_id: str) -> None:
        """Refuse what has ended, before the body is even looked at."""
        found = await self._known(instance_id)
        if found.status.is_final:
            raise InstanceFinished(f"instance {instance_id!r} has ended: {found.status}")


def _check_id(instance_id: str | None) -> None:
    if instance_id is None:
        return
    if instance_id.startswith("@"):
        raise InputInvalid("instance ids must not start with '@'")
    if _NOT_IN_IDS & set(instance_id):
        raise InputInvalid("instance ids must not contain '/', '\\', '?' or '#'")
    check_instance_id(instance_id)


def _words(request: Request) -> list[str]:
    """Return the statuses that are asked for, in lower case."""
    given = request.query_params.getlist("runtimeStatus")
    return [word for text in given for each in text.split(",") if (word := each.strip().lower())]


def _filter(request: Request) -> Filter | None:
    """Return the conditions; None if no instance can fulfil them. Times are inclusive."""
    words = _words(request)
    status = tuple(_STATUSES[word].value for word in words if word in _STATUSES)
    if not status and _NEVER_SEEN in words:
        return None
    until = micros_or_none(request, "createdTimeTo")
    return Filter(
        status=status,
        id_prefix=text_of(request, "instanceIdPrefix") or None,
        created_from=micros_or_none(request, "createdTimeFrom"),
        created_to=None if until is None else until + 1,
    )


def _deleted(count: int) -> Response:
    return json_response({"instancesDeleted": count}, 200 if count else 404)


def _bad_arguments(message: str, error: Exception) -> Response:
    shape = {
        "Message": message,
        "ExceptionMessage": str(error),
        "ExceptionType": type(error).__name__,
        "StackTrace": "",
    }
    return json_response(shape, 400)
