"""Cancelling sagas: what was done is undone, whatever dies on the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import requests as r
from shardrt.core.history import CancelRequested, ExecutionCompleted, Status
from shardrt.errors import (
    InputInvalid,
    InstanceFinished,
    InstanceNotFound,
    OrchestrationCanceled,
    SubOrchestrationFailed,
)
from shardrt.testing.client import HubClient, Refused
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.loops import in_loop
from tests.waiting import eventually

app = App()
booked: list[str] = []


@app.activity
async def book(name: str) -> str:
    await pass_time(0.02)
    booked.append(name)
    return name


@app.activity
async def unbook(name: str) -> None:
    await pass_time(0.02)
    while name in booked:  # it may have run more than once
        booked.remove(name)


@app.orchestrator
async def trip(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    done: list[str] = []
    try:
        for name in names:
            done += [await ctx.call_activity(book, name)]
            ctx.set_custom_status(done)
        await ctx.wait_for_event("departure")
    except asyncio.CancelledError:
        for name in reversed(done):
            await ctx.call_activity(unbook, name)
        ctx.set_custom_status("undone")
        raise
    return done


@app.orchestrator
async def tour(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_sub_orchestrator(trip, ["ship", "inn"], instance_id="trip!1")
    except SubOrchestrationFailed as failed:
        return f"{failed.error_type}: {failed.message}"
    return "done"


@app.orchestrator
async def wait(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_event("never")


@pytest.fixture(autouse=True)
def _nothing_booked() -> None:
    booked.clear()


# While one name is being booked, whether it counts as done is decided by what is recorded.
WHOLE = ["flight", "hotel", "car"]


async def canceled_among_crashes(hub: Hub, client: HubClient) -> None:
    await client.start("trip", WHOLE, instance_id="trip!0")

    async def status() -> Any:
        found = await client.get("trip!0")
        return None if found is None else bytes(found.custom_status)

    while await status() != b'["flight","hotel","car"]':
        await pass_time(0.01)
    await client.cancel("trip!0", "rain")
    for _ in range(4):
        hub.crash(hub.random.choice(hub.members))
        await pass_time(hub.random.uniform(0.0, 0.1))
        with suppress(Refused):  # it has ended by now
            await client.cancel("trip!0", "more rain")
    snapshot = await client.wait("trip!0")
    assert (snapshot.status, snapshot.reason) == (Status.CANCELED, "rain")
    assert bytes(snapshot.custom_status) == b'"undone"'


@pytest.mark.runs(15)
@pytest.mark.parametrize("resident_bytes_max", [1, 1 << 30], ids=["evicted", "resident"])
def test_a_saga_is_undone_whatever_shard_dies(seed: int, resident_bytes_max: int) -> None:
    shard = ShardSettings(checkpoint_interval_s=0.02, resident_bytes_max=resident_bytes_max)

    async def main() -> None:
        async with Hub(app, settings=Settings(shard=shard), seed=seed) as hub:
            client = HubClient(hub)
            await canceled_among_crashes(hub, client)
            history = await client.history("trip!0")
            assert history is not None
            told = [each for each in history if isinstance(each, CancelRequested)]
            assert [each.reason for each in told] == ["rain"]
            end = history[-1]
            assert isinstance(end, ExecutionCompleted)
            assert end.status is Status.CANCELED
            assert hub.broken == []

    run_virtual(main())
    assert booked == []


def test_a_canceled_parent_has_its_child_clean_up() -> None:
    async def main() -> None:
        async with Hub(app) as hub:
            client = HubClient(hub)
            await client.start("tour", instance_id="tour!0")
            await hub.until(lambda: booked == ["ship", "inn"])
            await client.cancel("tour!0", "rain")
            for name in ("tour!0", "trip!1"):
                snapshot = await client.wait(name)
                assert (snapshot.status, snapshot.reason) == (Status.CANCELED, "rain")

    run_virtual(main())
    assert booked == []


def test_a_parent_sees_that_its_child_was_canceled() -> None:
    async def main() -> None:
        async with Hub(app) as hub:
            client = HubClient(hub)
            await client.start("tour", instance_id="tour!0")
            await hub.until(lambda: booked == ["ship", "inn"])
            await client.cancel("trip!1", "rain")
            assert await client.result("tour!0") == "OrchestrationCanceled: rain"

    run_virtual(main())


def test_a_suspended_one_is_canceled_when_it_goes_on() -> None:
    async def main() -> None:
        async with Hub(app) as hub:
            client = HubClient(hub)
            await client.start("trip", ["flight"], instance_id="a")
            await hub.until(lambda: booked == ["flight"])
            await client.call("a", r.Suspend("lunch"))
            await client.cancel("a", "rain")
            hub.crash(hub.members[0])
            await pass_time(30)
            found = await client.get("a")
            assert found is not None
            assert found.status is Status.SUSPENDED
            await client.call("a", r.Resume())
            assert (await client.wait("a")).status is Status.CANCELED

    run_virtual(main())
    assert booked == []


@in_loop
async def test_clients_see_how_it_ended() -> None:
    async with Runtime(app, store="memory://", partitions=2) as runtime:
        client = runtime.client
        handle = await client.start(wait, instance_id="a")
        await handle.cancel("rain")
        with pytest.raises(OrchestrationCanceled, match="rain"):
            await handle.result(timeout=10)
        found = await handle.status(history=True)
        assert found is not None
        assert (found.status, found.reason) == ("Canceled", "rain")
        assert "CancelRequested" in [each.kind for each in found.history or ()]

        async def is_listed() -> bool:
            return [each.instance_id async for each in client.list(status=Status.CANCELED)] == ["a"]

        await eventually(is_listed)
        with pytest.raises(InstanceFinished):
            await handle.cancel()
        with pytest.raises(InstanceNotFound):
            await client.cancel("nobody")
        with pytest.raises(InputInvalid, match="entity"):
            await client.cancel("@acc@a")
