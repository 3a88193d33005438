"""Limits in real hosts, on each store: who waits, how that looks, and what a crash leaves of it."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from shardrt import App, Limit, OrchestrationContext, Runtime
from shardrt.core import requests as r
from shardrt.errors import ConfigInvalid, InputInvalid
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shardrt.client import Client

app = App()
begun: list[str] = []
gates: dict[str, asyncio.Event] = {}
API = Limit("api", concurrency=2, rate=1000)
STORES = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.pg)]
_names = itertools.count(1)


@app.activity(limit=API, limit_key=lambda name: name[0])
async def call(name: str) -> None:
    begun.append(name)
    await gates.setdefault(name, asyncio.Event()).wait()


@app.orchestrator
async def caller(ctx: OrchestrationContext, name: str) -> str:
    await ctx.call_activity(call, name)
    return name


@pytest.fixture(autouse=True)
def nothing_has_begun() -> None:
    begun.clear()
    gates.clear()


@pytest.fixture(params=STORES)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Runtime]:
    """Makes runtimes of one hub, one after the other."""
    urls = {
        "memory": lambda: f"memory://limits-{next(_names)}",
        "sqlite": lambda: f"sqlite:///{tmp_path / 'hub.db'}",
        "postgres": lambda: str(request.getfixturevalue("hub_dsn")),
    }
    url = urls[request.param]()
    settings = {"store.unsafe": True, "shard.checkpoint_interval_s": 0.05, "host.drain_s": 0.05}
    return lambda: Runtime(app, store=url, partitions=4, settings=settings)


async def line_up(client: Client, *names: str) -> None:
    """Start one after the other, so that it is known who is first."""
    for name in names:
        await client.start(caller, name, instance_id=name)
        await eventually(lambda name=name: _is_known(client, name))


async def _is_known(client: Client, name: str) -> bool:
    (waits,) = (await client.explain(name)).awaited
    return waits.kind == "activity" or waits.status.startswith("position")


@in_loop
async def test_each_key_has_its_own_slots_and_a_new_host_goes_on_with_them(
    runtime: Callable[[], Runtime],
):
    async with runtime() as first:
        await line_up(first.client, "a1", "a2", "a3", "a4", "b1")
        assert begun == ["a1", "a2", "b1"]
    begun.clear()
    async with runtime() as second:
        await eventually(lambda: len(begun) == 3)
        assert sorted(begun) == ["a1", "a2", "b1"]
        for position, name in enumerate(("a3", "a4"), 1):
            awaited = (await second.client.explain(name)).awaited
            slot = "a slot of limit 'api' key 'a' for activity 'call'"
            text = f"{slot}, position {position} of 2, 2 at work"
            assert [each.text for each in awaited if each.kind == "slot"] == [text]
        gates["a2"].set()
        await eventually(lambda: "a3" in begun)
        assert "a4" not in begun
        for name in ("a1", "a3", "a4", "b1"):
            gates.setdefault(name, asyncio.Event()).set()
        for name in ("a1", "a2", "a3", "a4", "b1"):
            assert await second.client.handle(name).result(timeout=10) == name


@in_loop
async def test_limiters_are_in_no_list_and_cannot_be_asked_for_anything(
    runtime: Callable[[], Runtime],
):
    async with runtime() as host:
        client = host.client
        await line_up(client, "a1", "a2", "a3")

        async def is_checkpointed() -> bool:
            return len([each async for each in client.list()]) == 3

        await eventually(is_checkpointed)
        assert [each async for each in client.list_entities()] == []
        for request in (r.Get(), r.GetEntity(), r.SignalEntity("x"), r.Purge(), r.Start("caller")):
            with pytest.raises(InputInvalid, match="is reserved"):
                await client.call("@$limit@api/a", request)
        with pytest.raises(ConfigInvalid):
            await client.signal_entity("@$limit@api/a", "x")


@in_loop
async def test_history_says_which_limit_it_was(runtime: Callable[[], Runtime]):
    async with runtime() as host:
        await line_up(host.client, "a1")
        (scheduled,) = [
            each for each in await host.client.history("a1") if each.kind == "TaskScheduled"
        ]
        assert scheduled.limit == {
            "limiter": "@$limit@api/a",
            "concurrency": 2,
            "rate": 1000,
            "per": 1_000_000,
        }
