"""Probes: many of them cost what one costs, and a host that is frozen cannot hold them up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from msgspec import Raw

from shardrt import App, Runtime
from shardrt.config import Settings
from shardrt.errors import StoreUnavailable
from shardrt.host.health import report_of
from shardrt.http.app import build_app
from shardrt.links.admin import HostHealth
from shardrt.store.memory import MemoryStore
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.test_health import child
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from shardrt.links.admin import Question


class Host:
    """What a gateway asks, and what it knows itself."""

    def __init__(self) -> None:
        self.asked = 0
        self.leads = True
        self.is_frozen = False
        self.facts: dict[str, Any] = {"host_id": "me", "lease": "held", "children": [child()]}

    async def call(self, instance_id: str, request: Any) -> Any:
        raise AssertionError(request)

    async def ask(self, question: Question) -> Raw:
        assert isinstance(question, HostHealth)
        self.asked += 1
        if self.is_frozen:
            await asyncio.Event().wait()
        return Raw(msgspec.json.encode(report_of(self.facts, Settings())))

    def probes(self) -> httpx.AsyncClient:
        app = build_app(self, readiness=lambda: (self.leads, {"partitions": 4}), host_id="me")
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host")


async def status(http: httpx.AsyncClient, path: str = "/health") -> tuple[int, str]:
    answer = await http.get(path)
    assert set(answer.json()) >= {"status"}
    return answer.status_code, answer.json()["status"]


def test_a_thousand_probes_a_second_ask_once_a_second() -> None:
    async def test() -> None:
        host = Host()
        async with host.probes() as http:
            for _ in range(20):
                await asyncio.gather(*(http.get("/health/ready") for _ in range(50)))
                await pass_time(0.2)
            assert host.asked <= 5
            host.asked = 0
            await asyncio.gather(*(http.get("/health/live") for _ in range(50)))
            await pass_time(10)
            assert host.asked == 0

    run_virtual(test())


def test_what_has_happened_is_seen_a_second_later() -> None:
    async def test() -> None:
        host = Host()
        async with host.probes() as http:
            assert await status(http) == (200, "Healthy")
            host.facts["problem"] = "connection refused"
            await pass_time(1.0)
            assert await status(http) == (503, "Unhealthy")
            assert (await http.get("/health")).json()["message"] == "store"
            assert await status(http, "/health/ready") == (503, "not ready")
            assert await status(http, "/health/live") == (200, "live")
            details = await http.get("/health/details")
            assert details.status_code == 503
            assert details.json()["checks"][0] == {
                "name": "store",
                "status": "Unhealthy",
                "message": "the lease cannot be renewed: connection refused",
            }
            host.facts["problem"] = ""
            host.facts["children"] = [child(lag_s=3.0)]
            await pass_time(1.0)
            assert await status(http) == (200, "Degraded")
            assert await status(http, "/health/ready") == (200, "ready")
            host.leads = False
            assert await status(http) == (503, "Unhealthy")
            assert await status(http, "/health/ready") == (503, "not ready")

    run_virtual(test())


def test_a_supervisor_that_does_not_answer_is_what_is_wrong() -> None:
    async def test() -> None:
        host = Host()
        host.is_frozen = True
        async with host.probes() as http:
            async with asyncio.timeout(3.0):
                assert await status(http) == (503, "Unhealthy")
            answer = (await http.get("/health/details")).json()
            assert answer["checks"][0]["name"] == "host"
            assert answer["message"] == "host"
            assert host.asked == 1
            host.is_frozen = False
            await pass_time(1.0)
            assert await status(http) == (200, "Healthy")

    run_virtual(test())


class Away(MemoryStore):
    """A store that can be away."""

    is_away = False
    renewals = 0

    async def renew(self, host: Any, ttl: int) -> Any:
        self.renewals += 1
        if self.is_away:
            raise StoreUnavailable("connection refused")
        return await super().renew(host, ttl)


@in_loop
async def test_an_embedded_host_that_loses_its_store_says_so() -> None:
    store = Away()
    settings = {"host.lease_ttl_s": 0.6}
    async with Runtime(App(), store=store, partitions=2, settings=settings) as runtime:
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:

            async def is_status(wanted: str) -> bool:
                return (await status(http))[1] == wanted

            # The lease is shorter than it should be, and memory:// forgets.
            assert await is_status("Degraded")
            details = (await http.get("/health/details")).json()
            assert [each["name"] for each in details["processes"]] == ["shard-0"]
            assert {row["phase"] for row in details["partitions"]} == {"serving"}
            store.is_away = True
            await eventually(lambda: is_status("Unhealthy"))
            store.is_away = False
            await eventually(lambda: is_status("Degraded"))
