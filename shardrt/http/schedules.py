"""Schedules over plain HTTP: add, look at, pause, resume, trigger and delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.client.filters import SnapshotPages, filter_of
from shardrt.client.schedules import ScheduleClient, ScheduleStatus
from shardrt.client.views import status_of, to_datetime
from shardrt.core import requests as r
from shardrt.errors import InstanceNotFound
from shardrt.http import answers as a
from shardrt.http.bodies import parse, read_body
from shardrt.http.operations import REFUSED_STATES, Endpoint, Operation, Parameter
from shardrt.http.problems import json_response
from shardrt.http.shapes import micros_of
from shardrt.links.frames import ENVELOPE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.client.views import OrchestrationStatus
    from shardrt.http.caller import Caller

ROOT = "/runtime/schedules"
ONE = ROOT + "/{schedule_id:path}"
PAGE_SIZE = 100


class ScheduleBody(msgspec.Struct, rename="camel"):
    """A schedule; durations in seconds, times in ISO 8601."""

    orchestrator: str
    input: Any = None
    cron: str | None = None
    timezone: str = "UTC"
    every: float | None = None
    overlap: str = "skip"
    catch_up: str = "last"
    jitter: float = 0.0
    start: str | None = None
    end: str | None = None
    version: str | None = None
    replace: bool = False


class ScheduleApi:
    """The operations. Each method answers one of them."""

    def __init__(self, caller: Caller, *, payload_bytes_max: int, json_depth_max: int) -> None:
        self._schedules = _Schedules(caller)
        self._body_bytes_max = payload_bytes_max + ENVELOPE_BYTES_MAX
        self._json_depth_max = json_depth_max

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path=ROOT,
                name="listSchedules",
                summary="List schedules",
                answer=self.list_schedules,
                parameters=(Parameter("ended", "Those that have ended, too", bool),),
                answers={200: a.Schedules},
            ),
            *self._steering(),
            *(
                Operation(
                    method=method,
                    path=ONE,
                    name=name,
                    summary="Add a schedule, or replace it",
                    answer=self.put,
                    body=ScheduleBody,
                    needs_body=True,
                    answers={201: a.ScheduleDone},
                    refusals=(409,),
                )
                for method, name in (("PUT", "putSchedule"), ("POST", "postSchedule"))
            ),
            Operation(
                method="GET",
                path=ONE,
                name="getSchedule",
                summary="Look at a schedule",
                answer=self.get,
                answers={200: a.Schedule},
                refusals=(409,),
            ),
            Operation(
                method="DELETE",
                path=ONE,
                name="deleteSchedule",
                summary="Delete a schedule",
                answer=self.delete,
                answers={200: a.ScheduleDone},
                refusals=REFUSED_STATES,
            ),
        ]

    def _steering(self) -> Iterator[Operation]:
        steering: list[tuple[str, str, Endpoint]] = [
            ("pause", "Let no more instances start", self.pause),
            ("resume", "Let a paused schedule go on", self.resume),
            ("trigger", "Start an instance now", self.trigger),
        ]
        for word, summary, answer in steering:
            yield Operation(
                method="POST",
                path=f"{ONE}/{word}",
                name=f"{word}Schedule",
                summary=summary,
                answer=answer,
                answers={202: a.ScheduleDone},
                refusals=REFUSED_STATES,
            )

    async def put(self, request: Request) -> Response:
        body: Any = parse(
            await read_body(request, self._body_bytes_max), ScheduleBody, self._json_depth_max
        )
        schedule_id = _id_of(request)
        await self._schedules.schedule(
            schedule_id,
            body.orchestrator,
            body.input,
            cron=body.cron,
            timezone=body.timezone,
            every=body.every,
            overlap=body.overlap,
            catch_up=body.catch_up,
            jitter=body.jitter,
            start=_moment(body.start, "start"),
            end=_moment(body.end, "end"),
            version=body.version,
            replace=body.replace,
        )
        return json_response({"scheduleId": schedule_id}, 201)

    async def get(self, request: Request) -> Response:
        schedule_id = _id_of(request)
        found = await self._schedules.get_schedule(schedule_id)
        if found is None:
            raise InstanceNotFound(f"no schedule {schedule_id!r}")
        return json_response(schedule_shape(found))

    async def list_schedules(self, request: Request) -> Response:
        ended = request.query_params.get("ended", "").lower() in {"true", "1", "yes"}
        found = [schedule_shape(each) async for each in self._schedules.schedules(ended=ended)]
        return json_response({"schedules": found})

    async def pause(self, request: Request) -> Response:
        await self._schedules.pause_schedule(_id_of(request))
        return json_response({"scheduleId": _id_of(request)}, 202)

    async def resume(self, request: Request) -> Response:
        await self._schedules.resume_schedule(_id_of(request))
        return json_response({"scheduleId": _id_of(request)}, 202)

    async def trigger(self, request: Request) -> Response:
        await self._schedules.trigger_schedule(_id_of(request))
        return json_response({"scheduleId": _id_of(request)}, 202)

    async def delete(self, request: Request) -> Response:
        await self._schedules.delete_schedule(_id_of(request))
        return json_response({"scheduleId": _id_of(request)})


def schedule_shape(status: ScheduleStatus) -> dict[str, Any]:
    """Return a schedule as an object."""
    return {
        "scheduleId": status.schedule_id,
        "orchestrator": status.orchestrator,
        "cron": status.cron,
        "timezone": status.timezone,
        "every": None if status.every is None else status.every.total_seconds(),
        "overlap": status.overlap,
        "catchUp": status.catch_up,
        "paused": status.paused,
        "ended": status.ended,
        "nextDue": status.next_due,
        "lastDue": status.last_due,
        "lastInstanceId": status.last_instance_id,
        "running": status.running,
        "started": status.started,
        "skipped": status.skipped,
        "lastFailure": status.last_failure,
        "reason": status.reason,
    }


def _id_of(request: Request) -> str:
    schedule_id: str = request.path_params["schedule_id"]
    return schedule_id


def _moment(text: str | None, what: str) -> datetime | None:
    micros = micros_of(text, what)
    return None if micros is None else to_datetime(micros)


class _Schedules(ScheduleClient):
    """What schedules need of a client, on top of a caller."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def start(
        self,
        name: str,
        input: object,  # noqa: A002 - as the client calls it
        *,
        instance_id: str,
        on_conflict: str,
    ) -> None:
        payload = Raw(msgspec.json.encode(input))
        await self._caller.call(instance_id, r.Start(name, payload, on_conflict=on_conflict))

    async def list(self, **conditions: Any) -> AsyncIterator[OrchestrationStatus]:
        async for page in SnapshotPages(self._caller, filter_of(**conditions), PAGE_SIZE):
            for snapshot in page:
                yield status_of(snapshot)

    async def get(self, instance_id: str) -> OrchestrationStatus | None:
        snapshot: Any = await self._caller.call(instance_id, r.Get())
        return None if snapshot is None else status_of(snapshot)

    async def raise_event(self, instance_id: str, name: str, data: object) -> None:
        await self._caller.call(instance_id, r.Raise(name, Raw(msgspec.json.encode(data))))

    async def terminate(self, instance_id: str, reason: str, *, recursive: bool) -> None:
        await self._caller.call(instance_id, r.Terminate(reason, recursive))

    async def purge(self, instance_id: str) -> None:
        await self._caller.call(instance_id, r.Purge())
