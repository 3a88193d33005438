"""The management API: start, look at and steer orchestrations over plain HTTP.

Everything here is one request to a `Caller`, so it can stand in front of a gateway as well as
an embedded runtime. What it answers with 202 is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec.structs import replace

from shardrt.client.explaining import explain
from shardrt.client.filters import page_of, status_of_text
from shardrt.client.instance_ids import new_instance_id
from shardrt.client.purging import purge_where
from shardrt.client.starting import check_instance_id
from shardrt.core import requests as r
from shardrt.core.history import FINAL, Status
from shardrt.errors import (
    InputInvalid,
    InstanceNotFound,
    OrchestratorNotRegistered,
    PayloadTooLarge,
)
from shardrt.http import answers as a
from shardrt.http.bodies import EventBody, ReasonBody, StartBody, parse, read_body
from shardrt.http.operations import REFUSED_STATES, Endpoint, Operation, Parameter, Time
from shardrt.http.problems import BadRequest, json_response
from shardrt.http.shapes import explanation_shape, history_shape, instance_shape, micros_of
from shardrt.links.frames import ENVELOPE_BYTES_MAX
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Raw
    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.http.caller import Caller

ROOT = "/runtime/orchestrations"
ONE = ROOT + "/{instance_id:path}"
PAGE_SIZE = 100
POLL_AFTER_S = 1
_TRUE = ("true", "1", "yes", "")

SHOW_INPUT = Parameter("showInput", "With inputs; true if left out", bool)
SHOW_HISTORY = (
    Parameter("showHistory", "With the history", bool),
    Parameter("showHistoryOutput", "With what is in its events", bool),
)
PAGING = (
    Parameter("top", "How many at most", int),
    Parameter("continuationToken", "Of the page before"),
)
CONDITIONS = (
    Parameter("status", "Any of these", Status, is_list=True),
    Parameter("name", "Of the orchestrator"),
    Parameter("prefix", "What ids begin with"),
    Parameter("createdFrom", "Not before", Time),
    Parameter("createdTo", "Before", Time),
    Parameter("completedFrom", "Not before", Time),
    Parameter("completedTo", "Before", Time),
    Parameter("tag", "key=value; all of these", is_list=True),
)


class ManagementApi:
    """The operations. Each method answers one of them."""

    def __init__(
        self, caller: Caller, *, payload_bytes_max: int, json_depth_max: int, page_size_max: int
    ) -> None:
        self._caller = caller
        self._payload_bytes_max = payload_bytes_max
        self._json_depth_max = json_depth_max
        self._page_size_max = page_size_max

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path=ROOT + "/start/{name:path}",
                name="startInstance",
                summary="Start an instance of an orchestrator",
                answer=self.start,
                body=StartBody,
                answers={202: a.StartedInstance},
                refusals=REFUSED_STATES,
            ),
            Operation(
                method="GET",
                path=ROOT,
                name="listInstances",
                summary="List instances, by pages",
                answer=self.list_instances,
                parameters=(*CONDITIONS, *PAGING, SHOW_INPUT),
                answers={200: a.InstancePage},
            ),
            Operation(
                method="DELETE",
                path=ROOT,
                name="purgeInstances",
                summary="Purge instances that have ended, by at least one condition",
                answer=self.purge_instances,
                parameters=CONDITIONS,
                answers={200: a.InstancesDeleted},
            ),
            *self._steering(),
            *self._of_one(),
        ]

    def _steering(self) -> Iterator[Operation]:
        steering: list[tuple[str, str, Endpoint, Any]] = [
            ("raiseEvent", "Send an event to an instance", self.raise_event, EventBody),
            ("terminate", "End an instance from outside", self.terminate, ReasonBody),
            ("cancel", "Cancel an instance, which may clean up first", self.cancel, ReasonBody),
            ("suspend", "Pause an instance", self.suspend, ReasonBody),
            ("resume", "Let an instance go on", self.resume, ReasonBody),
            ("rewind", "Run again what failed", self.rewind, ReasonBody),
            ("restart", "Run an instance that has ended anew", self.restart, ReasonBody),
        ]
        for word, summary, answer, body in steering:
            rest = "/{event:path}" if body is EventBody else ""
            yield Operation(
                method="POST",
                path=f"{ONE}/{word}{rest}",
                name=word if rest else f"{word}Instance",
                summary=summary,
                answer=answer,
                parameters=() if rest else (Parameter("reason", "If the body has none"),),
                body=body,
                answers={202: a.InstanceDone},
                refusals=REFUSED_STATES,
            )

    def _of_one(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path=f"{ONE}/why",
                name="explainInstance",
                summary="Tell what an instance waits for",
                answer=self.why,
                answers={200: a.Explanation},
            ),
            Operation(
                method="GET",
                path=ONE,
                name="getInstance",
                summary="Look at an instance",
                answer=self.get,
                parameters=(SHOW_INPUT, *SHOW_HISTORY),
                answers={200: a.Instance},
                refusals=(409,),
            ),
            Operation(
                method="DELETE",
                path=ONE,
                name="purgeInstance",
                summary="Delete an instance that has ended",
                answer=self.purge,
                parameters=(Parameter("force", "Also one that cannot be read", bool),),
                answers={200: a.InstancesDeleted},
                refusals=REFUSED_STATES,
            ),
        ]

    async def start(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:
            raise OrchestratorNotRegistered("the path ends in the name of an orchestrator")
        body: StartBody = await self._body(request, StartBody)
        self._check_payload(body.input, "input")
        fresh = body.instance_id is None
        instance_id = new_instance_id() if fresh else check_instance_id(body.instance_id or "")
        if body.on_conflict not in ("fail", "return", "restart"):
            raise BadRequest("onConflict must be fail, return or restart")
        started: Any = await self._caller.call(
            instance_id,
            r.Start(
                name,
                body.input,
                body.version,
                body.tags,
                micros_of(body.start_at, "startAt"),
                body.on_conflict,
                fresh,
            ),
        )
        urls = _management_urls(request, started.instance_id)
        headers = {
            "Location": urls["statusQueryGetUri"],
            "Retry-After": str(POLL_AFTER_S),
        }
        answer = {"instanceId": started.instance_id, "managementUrls": urls}
        return json_response(answer, 202, headers)

    async def get(self, request: Request) -> Response:
        instance_id = _instance_id(request)
        snapshot: Any = await self._caller.call(instance_id, r.Get())
        if snapshot is None:
            raise InstanceNotFound(f"no instance {instance_id!r}")
        shape = instance_shape(snapshot, show_input=_flag(request, "showInput", default=True))
        if _flag(request, "showHistory"):
            encoded: Any = await self._caller.call(instance_id, r.GetHistory())
            show_output = _flag(request, "showHistoryOutput")
            shape["historyEvents"] = (
                [] if encoded is None else history_shape(encoded, show_output=show_output)
            )
        return json_response(shape)

    async def why(self, request: Request) -> Response:
        explanation = await explain(self._caller, _instance_id(request))
        return json_response(explanation_shape(explanation))

    async def raise_event(self, request: Request) -> Response:
        body: EventBody = await self._body(request, EventBody)
        self._check_payload(body.event_data, "eventData")
        return await self._done(request, r.Raise(request.path_params["event"], body.event_data))

    async def terminate(self, request: Request) -> Response:
        body = await self._reason(request)
        return await self._done(request, r.Terminate(body.reason, body.recursive))

    async def cancel(self, request: Request) -> Response:
        return await self._done(request, r.Cancel((await self._reason(request)).reason))

    async def suspend(self, request: Request) -> Response:
        return await self._done(request, r.Suspend((await self._reason(request)).reason))

    async def resume(self, request: Request) -> Response:
        return await self._done(request, r.Resume((await self._reason(request)).reason))

    async def rewind(self, request: Request) -> Response:
        return await self._done(request, r.Rewind((await self._reason(request)).reason))

    async def restart(self, request: Request) -> Response:
        await self._reason(request)
        return await self._done(request, r.Restart())

    async def purge(self, request: Request) -> Response:
        instance_id = _instance_id(request)
        force = request.query_params.get("force", "").lower() in {"true", "1"}
        purged: Any = await self._caller.call(instance_id, r.Purge(force))
        if not purged.count:
            raise InstanceNotFound(f"no instance {instance_id!r}")
        return json_response({"instancesDeleted": purged.count})

    async def purge_instances(self, request: Request) -> Response:
        where = _filter(request)
        if where == Filter():
            raise BadRequest("give at least one condition: status, completedTo, name, prefix, tag")
        ends = set(where.status or FINAL) & set(FINAL)
        if not ends:
            return json_response({"instancesDeleted": 0})
        ended = replace(where, status=tuple(sorted(ends)))
        return json_response({"instancesDeleted": await purge_where(self._caller, ended)})

    async def list_instances(self, request: Request) -> Response:
        given = request.query_params
        where = _filter(request)
        limit = self._page_size(given.get("top"))
        page = await page_of(self._caller, where, limit, given.get("continuationToken") or None)
        show_input = _flag(request, "showInput", default=True)
        shapes = [instance_shape(each, show_input=show_input) for each in page.instances]
        return json_response({"instances": shapes, "continuationToken": page.token})

    # -------------------------------------------------------------------------------------------

    async def _done(self, request: Request, wanted: r.Request) -> Response:
        instance_id = _instance_id(request)
        await self._caller.call(instance_id, wanted)
        return json_response({"instanceId": instance_id}, 202)

    async def _reason(self, request: Request) -> ReasonBody:
        body: ReasonBody = await self._body(request, ReasonBody)
        if not body.reason:
            body.reason = request.query_params.get("reason", "")
        return body

    async def _body(self, request: Request, kind: Any) -> Any:
        body = await read_body(request, self._payload_bytes_max + ENVELOPE_BYTES_MAX)
        return parse(body, kind, self._json_depth_max)

    def _check_payload(self, payload: Raw, what: str) -> None:
        size = memoryview(payload).nbytes
        if size > self._payload_bytes_max:
            raise PayloadTooLarge(f"{what} of {size} bytes exceeds {self._payload_bytes_max}")

    def _page_size(self, top: str | None) -> int:
        if not top:
            return min(PAGE_SIZE, self._page_size_max)
        if not top.isdecimal() or not 0 < int(top[:9]) <= self._page_size_max:
            raise BadRequest(f"top must be a number from 1 to {self._page_size_max}")
        return int(top)


def _filter(request: Request) -> Filter:
    given = request.query_params
    wanted = [s for text in given.getlist("status") for s in text.split(",") if s]
    tags = {}
    for tag in given.getlist("tag"):
        key, separator, value = tag.partition("=")
        if not separator:
            raise BadRequest(f"tag={tag!r}: give key=value")
        tags[key] = value
    return Filter(
        status=tuple(status_of_text(text).value for text in wanted),
        name=given.get("name") or None,
        id_prefix=given.get("prefix") or None,
        created_from=micros_of(given.get("createdFrom"), "createdFrom"),
        created_to=micros_of(given.get("createdTo"), "createdTo"),
        completed_from=micros_of(given.get("completedFrom"), "completedFrom"),
        completed_to=micros_of(given.get("completedTo"), "completedTo"),
        tags=tags or None,
    )


def _instance_id(request: Request) -> str:
    try:
        return check_instance_id(request.path_params["instance_id"])
    except InputInvalid:
        raise InstanceNotFound("no instance can have that id") from None


def _flag(request: Request, name: str, *, default: bool = False) -> bool:
    text = request.query_params.get(name)
    return default if text is None else text.lower() in _TRUE


def _management_urls(request: Request, instance_id: str) -> dict[str, str]:
    one = f"{str(request.base_url).rstrip('/')}{ROOT}/{quote(instance_id, safe='')}"
    return {
        "statusQueryGetUri": one,
        "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}",
        "terminatePostUri": f"{one}/terminate",
        "purgeHistoryDeleteUri": one,
    }
