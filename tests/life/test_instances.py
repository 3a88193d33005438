"""The life of instances on a real host: everything that can be done to them from outside."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.client import Client, Status
from shardrt.errors import (
    InstanceExists,
    InstanceFinished,
    InstanceNotFinished,
    OrchestrationFailed,
    OrchestrationTerminated,
)
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

app = App()
under_way: set[str] = set()


@app.activity
async def endless(name: str) -> None:
    under_way.add(name)
    try:
        await asyncio.Event().wait()
    finally:
        under_way.discard(name)


@app.orchestrator
async def worker(ctx: OrchestrationContext, name: str) -> None:
    await ctx.call_activity(endless, name)


@app.orchestrator
async def boss(ctx: OrchestrationContext) -> None:
    await asyncio.gather(
        ctx.call_activity(endless, "boss"),
        ctx.call_sub_orchestrator(worker, "near", instance_id="near!0"),
        ctx.call_sub_orchestrator(worker, "far", instance_id="far!1"),
    )


@app.orchestrator
async def collect(ctx: OrchestrationContext, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.append(await ctx.wait_for_event("number", int))
        ctx.set_custom_status({"found": len(found)})
    return found


@app.orchestrator
async def echo(ctx: OrchestrationContext, value: Any) -> Any:
    return value


@app.orchestrator
async def fail(ctx: OrchestrationContext) -> None:
    raise ValueError("no")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'hub.db'}"


@asynccontextmanager
async def client_of(store: str, **settings: Any) -> AsyncIterator[Client]:
    given = {"shard.checkpoint_interval_s": 0.05, "host.drain_s": 0.1, **settings}
    async with Runtime(app, store=store, partitions=4, settings=given) as runtime:
        yield runtime.client


async def listed(client: Client, **conditions: Any) -> list[str]:
    return sorted([each.instance_id async for each in client.list(**conditions)])


async def status_of(client: Client, instance_id: str) -> Status:
    found = await client.get(instance_id)
    assert found is not None
    return found.status


@in_loop
async def test_what_arrives_while_it_is_suspended_comes_in_order_afterwards(store: str) -> None:
    async with client_of(store) as client:
        handle = await client.start(collect, 6, instance_id="a")
        await handle.raise_event("number", 0)
        await handle.suspend("lunch")
        for number in range(1, 5):
            await handle.raise_event("NUMBER", number)
        found = await handle.status()
        assert found is not None
        assert (found.status, found.reason) == (Status.SUSPENDED, "lunch")
        await handle.suspend("again")
        await handle.resume()
        await handle.raise_event("number", 5)
        assert await handle.result(timeout=10) == [0, 1, 2, 3, 4, 5]
        done = await handle.status()
        assert done is not None
        assert done.custom_status == {"found": 6}
        with pytest.raises(InstanceFinished):
            await handle.suspend()


@in_loop
async def test_terminating_reaches_children_and_what_they_run(store: str) -> None:
    async with client_of(store) as client:
        handle = await client.start(boss)
        await eventually(lambda: under_way == {"boss", "near", "far"})
        await handle.terminate("enough")
        await eventually(lambda: not under_way)
        with pytest.raises(OrchestrationTerminated, match="enough"):
            await handle.result(timeout=10)

        async def all_ended() -> bool:
            ends = [await status_of(client, each) for each in ("near!0", "far!1")]
            return ends == [Status.TERMINATED] * 2

        await eventually(all_ended)


@in_loop
async def test_terminating_can_leave_children_alone(store: str) -> None:
    async with client_of(store) as client:
        handle = await client.start(boss)
        await eventually(lambda: under_way == {"boss", "near", "far"})
        await handle.terminate(recursive=False)
        await eventually(lambda: under_way == {"near", "far"})
        assert await status_of(client, "near!0") is Status.RUNNING
        await client.terminate("near!0")
        await client.terminate("far!1")
        await eventually(lambda: not under_way)


@in_loop
async def test_a_delayed_start_is_visible_and_waits(store: str) -> None:
    async with client_of(store) as client:
        later = await client.start(echo, 1, start_at=timedelta(hours=1), instance_id="later")
        assert await status_of(client, "later") is Status.PENDING
        (waits,) = (await client.explain("later")).awaited
        assert waits.due is not None
        hour = timedelta(hours=1)
        assert abs(waits.due - datetime.now(UTC) - hour) < timedelta(minutes=1)  # noqa: TID251
        await later.terminate()
        soon = await client.start(echo, 2, start_at=timedelta(seconds=0.2))
        assert await soon.result(timeout=10) == 2
        done = await soon.status()
        assert done is not None
        assert done.updated_at - done.created_at >= timedelta(seconds=0.15)


@in_loop
async def test_what_a_start_does_if_the_id_is_taken(store: str) -> None:
    async with client_of(store) as client:
        first = await client.start(collect, 1, instance_id="a")
        for conflict in ("fail", "restart"):
            with pytest.raises(InstanceExists):
                await client.start(echo, 1, instance_id="a", on_conflict=conflict)
        again = await client.start(echo, 2, instance_id="a", on_conflict="return")
        await first.raise_event("number", 7)
        assert await again.result(timeout=10) == [7]
        with pytest.raises(InstanceExists):
            await client.start(echo, 1, instance_id="a")
        restarted = await client.start(echo, 3, instance_id="a", on_conflict="restart")
        assert await restarted.result(timeout=10) == 3


@in_loop
async def test_a_restart_has_the_same_input_and_no_history(store: str) -> None:
    async with client_of(store) as client:
        handle = await client.start(collect, 1, tags={"k": "v"})
        with pytest.raises(InstanceNotFinished):
            await handle.restart()
        await handle.raise_event("number", 1)
        await handle.result(timeout=10)
        await handle.restart()
        await handle.raise_event("number", 2)
        assert await handle.result(timeout=10) == [2]
        done = await handle.status(history=True)
        assert done is not None
        assert (done.input, done.tags) == (1, {"k": "v"})
        assert [each.data for each in done.history or () if each.kind == "EventRaised"] == [2]


@in_loop
async def test_lists_counts_and_purges_go_by_all_conditions(store: str) -> None:
    async with client_of(store) as client:
        for number in range(4):
            tags = {"team": "red" if number % 2 else "blue", "n": str(number)}
            await client.start(echo, number, instance_id=f"echo-{number}", tags=tags)
        await client.start(collect, 1, instance_id="open", tags={"team": "red"})
        failed = await client.start(fail, instance_id="bad")
        with pytest.raises(OrchestrationFailed):
            await failed.result(timeout=10)

        async def is_visible() -> bool:
            return await client.count() == {"Completed": 4, "Failed": 1, "Running": 1}

        await eventually(is_visible)
        assert await listed(client, tags={"team": "red"}) == ["echo-1", "echo-3", "open"]
        assert await listed(client, tags={"team": "red", "n": "3"}) == ["echo-3"]
        assert await listed(client, status="failed") == ["bad"]
        assert await listed(client, status=[Status.FAILED, Status.RUNNING]) == ["bad", "open"]
        assert await listed(client, name="echo", id_prefix="echo-", page_size=1) == [
            f"echo-{number}" for number in range(4)
        ]
        third = await client.get("echo-2")
        assert third is not None
        assert third.completed_at is not None
        assert "echo-2" in await listed(client, completed_from=third.completed_at)
        assert "echo-2" not in await listed(client, completed_to=third.completed_at)
        assert "echo-2" not in await listed(client, created_to=third.created_at)
        assert "echo-2" in await listed(client, created_from=third.created_at)

        seen: list[int] = []
        assert await client.purge_where(tags={"team": "red"}, progress=seen.append) == 2
        assert seen == [2]
        await eventually(lambda: _equal(listed(client, tags={"team": "red"}), ["open"]))
        with pytest.raises(InstanceNotFinished):
            await client.purge("open")
        assert await client.purge("bad") == 1
        assert await client.purge("bad") == 0


async def _equal(found: Any, expected: object) -> bool:
    return bool(await found == expected)


@in_loop
async def test_the_api_filters_and_purges_alike() -> None:
    settings = {"shard.checkpoint_interval_s": 0.05}
    async with Runtime(app, partitions=4, settings=settings) as runtime:
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            root = "/runtime/orchestrations"
            for number in range(3):
                tags = {"n": str(number), "a": "b"}
                body = {"input": number, "instanceId": f"e{number}", "tags": tags}
                await http.post(f"{root}/start/echo", json=body)

            async def ids(query: str) -> list[str]:
                found = (await http.get(f"{root}?{query}")).json()["instances"]
                return sorted(each["instanceId"] for each in found)

            await eventually(lambda: _equal(ids("status=Completed"), ["e0", "e1", "e2"]))
            assert await ids("tag=n=1&tag=a=b") == ["e1"]
            assert await ids("completedTo=2001-01-01T00:00:00Z") == []
            assert len(await ids("completedFrom=2001-01-01T00:00:00Z")) == 3
            assert (await http.get(f"{root}?tag=oops")).status_code == 400
            assert (await http.delete(root)).status_code == 400
            assert (await http.delete(f"{root}?status=Running")).json() == {"instancesDeleted": 0}
            purged = await http.delete(f"{root}?status=Completed&tag=n=1")
            assert purged.json() == {"instancesDeleted": 1}
            await eventually(lambda: _equal(ids("name=echo"), ["e0", "e2"]))


@in_loop
async def test_how_long_ended_instances_stay_depends_on_how_they_ended(store: str) -> None:
    ages = {"completed_s": 0.05, "failed_s": 3600.0, "terminated_s": 0.0, "sweep_interval_s": 0.05}
    settings = {f"retention.{name}": value for name, value in ages.items()}
    async with client_of(store, **settings) as client:
        await client.start(echo, 1, instance_id="good")
        await client.start(fail, instance_id="bad")
        await client.start(collect, 1, instance_id="ended")
        await client.terminate("ended")

        async def is_gone() -> bool:
            return await client.get("good") is None

        await eventually(is_gone)
        assert await status_of(client, "bad") is Status.FAILED
        assert await status_of(client, "ended") is Status.TERMINATED
