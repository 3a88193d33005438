"""Whether this host lives, whether to send it requests, and how it stands.

No probe touches the store or a shard: the supervisor is asked what it knows, once a second
however many ask, and that it lives nobody is asked at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.errors import ShardrtError
from shardrt.host.health import Check, Report, Status, worst
from shardrt.http.answers import Health, HealthDetails
from shardrt.http.operations import Operation
from shardrt.http.problems import json_response
from shardrt.links.admin import HostHealth

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from shardrt.http.caller import Caller

ROOT = "/health"
PATHS = (ROOT, ROOT + "/live", ROOT + "/ready")
"""Those that ask for no token."""

FRESH_S = 1.0
"""So long a report is good."""
ANSWER_S = 2.0
"""So long a supervisor may take to answer that is not frozen."""

_decode = msgspec.json.Decoder(Report | None).decode


class HealthApi:
    """Answers probes.

    Args:
        caller: whom to ask for the report; where there is no supervisor, nobody knows one.
        readiness: whether requests lead anywhere from here, and facts about it.
    """

    def __init__(
        self,
        caller: Caller,
        readiness: Callable[[], tuple[bool, dict[str, Any]]],
        host_id: str = "",
    ) -> None:
        self._caller = caller
        self._readiness = readiness
        self._host_id = host_id
        self._report: Report | None = None
        self._asked_s = float("-inf")
        self._led = False
        """Whether requests led anywhere when it was asked for: what has begun since changes it."""
        self._asking: asyncio.Task[None] | None = None

    def operations(self) -> list[Operation]:
        summaries = {
            "health": (ROOT, "Whether anything is wrong", self.health, Health),
            "live": (PATHS[1], "Whether the host lives", self.live, Health),
            "ready": (PATHS[2], "Whether to send requests here", self.ready, Health),
            "healthDetails": (
                ROOT + "/details",
                "How the host stands, and why",
                self.details,
                HealthDetails,
            ),
        }
        return [
            Operation(
                method="GET",
                path=path,
                name=name,
                summary=summary,
                answer=answer,
                answers={200: kind} if path == PATHS[1] else {200: kind, 503: kind},
                is_open=path in PATHS,
            )
            for name, (path, summary, answer, kind) in summaries.items()
        ]

    async def live(self, _: Request) -> Response:
        """Answer, which is all there is to it."""
        return json_response({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """Say whether requests should come here."""
        report = await self.report()
        facts = self._readiness()[1]
        status = "ready" if report.is_ready else "not ready"
        message = status if report.is_ready else f"{status}: {_troubles(report)}"
        body = {"status": status, "message": message, **facts}
        return json_response(body, 200 if report.is_ready else 503)

    async def health(self, _: Request) -> Response:
        """Say how the host stands, in one word."""
        report = await self.report()
        return _answer({"status": report.status, "message": _troubles(report)}, report)

    async def details(self, _: Request) -> Response:
        """Say how the host stands, and what that rests on."""
        report = await self.report()
        body = {"message": _troubles(report), **msgspec.to_builtins(report)}
        return _answer(body, report)

    async def report(self) -> Report:
        """Return how the host stands, with what this process knows itself."""
        leads = self._readiness()[0]
        report = await self._fresh(leads)
        routes = (
            Check("routes", Status.HEALTHY)
            if leads
            else Check("routes", Status.UNHEALTHY, "no requests should come here, now or any more")
        )
        if report is None:
            return Report(
                status=routes.status, is_ready=leads, host_id=self._host_id, checks=[routes]
            )
        return msgspec.structs.replace(
            report,
            status=worst([report.status, routes.status]),
            is_ready=report.is_ready and leads,
            checks=[*report.checks, routes],
        )

    async def _fresh(self, leads: bool) -> Report | None:
        is_stale = (
            asyncio.get_running_loop().time() - self._asked_s >= FRESH_S or leads is not self._led
        )
        if is_stale and self._asking is None:
            self._led = leads
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)
        return self._report

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                self._report = _decode(await self._caller.ask(HostHealth()))
        except (TimeoutError, ShardrtError) as error:
            text = str(error) or "it does not answer"
            self._report = Report(
                status=Status.UNHEALTHY,
                is_ready=False,
                host_id=self._host_id,
                checks=[Check("host", Status.UNHEALTHY, text)],
            )
        finally:
            self._asked_s = asyncio.get_running_loop().time()
            self._asking = None


def _answer(body: dict[str, Any], report: Report) -> Response:
    return json_response(body, 503 if report.status is Status.UNHEALTHY else 200)


def _troubles(report: Report) -> str:
    """Return what is not healthy, by name: reasons are for those who have a token."""
    return ", ".join(each.name for each in report.checks if each.status is not Status.HEALTHY)
