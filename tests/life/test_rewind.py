"""Rewinding real orchestrations: what failed runs again, once the reason is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.client import Status
from shardrt.errors import InstanceNotFailed, InstanceNotFound, OrchestrationFailed
from tests.loops import in_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

app = App()
calls: Counter[str] = Counter()
broken: set[str] = set()
"""What fails at present."""


@pytest.fixture(autouse=True)
def _begin() -> None:
    calls.clear()
    broken.clear()


@app.activity
async def step(name: str) -> str:
    calls[name] += 1
    if name in broken:
        raise OSError(f"{name} is broken")
    return name.upper()


@app.orchestrator
async def chain(ctx: OrchestrationContext) -> list[str]:
    token = str(ctx.new_uuid())
    first = await ctx.call_activity(step, "first")
    both = await asyncio.gather(
        ctx.call_activity(step, "second"), ctx.call_activity(step, "third"), return_exceptions=True
    )
    for each in both:
        if isinstance(each, BaseException):
            raise each
    assert token == str(await ctx.call_activity(echo, token))
    return [first, *map(str, both)]


@app.activity
async def echo(value: str) -> str:
    return value


@app.orchestrator
async def leaf(ctx: OrchestrationContext, name: str) -> str:
    before = await ctx.call_activity(step, f"before {name}")
    return f"{before} {await ctx.call_activity(step, name)}"


@app.orchestrator
async def tree(ctx: OrchestrationContext) -> list[str]:
    # Neither knows what the other does: one may run on while the other has failed already.
    children = [ctx.call_sub_orchestrator(leaf, name) for name in ("left", "right")]
    return [str(await child) for child in children]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'hub.db'}"


@asynccontextmanager
async def running(store: str) -> AsyncIterator[Runtime]:
    settings = {"shard.checkpoint_interval_s": 0.05}
    async with Runtime(app, store=store, partitions=4, settings=settings) as runtime:
        yield runtime


@in_loop
async def test_what_succeeded_does_not_run_again(store: str) -> None:
    async with running(store) as runtime:
        broken.add("second")
        handle = await runtime.client.start(chain, instance_id="a")
        with pytest.raises(OrchestrationFailed):
            await handle.result(timeout=10)
        broken.clear()
        await handle.rewind("the disk is back")
        assert await handle.result(timeout=10) == ["FIRST", "SECOND", "THIRD"]
        assert calls == {"first": 1, "second": 2, "third": 1}
        status = await handle.status(history=True)
        assert status is not None
        assert (status.status, status.failure) == (Status.COMPLETED, None)
        (rewound,) = [each for each in status.history or () if each.kind == "ExecutionRewound"]
        assert rewound.reason == "the disk is back"


@in_loop
async def test_a_purge_of_failed_ones_spares_one_that_was_rewound_since_they_were_listed() -> None:
    async with Runtime(app, partitions=4) as runtime:
        client = runtime.client
        broken.add("second")
        handle = await client.start(chain, instance_id="a")
        with pytest.raises(OrchestrationFailed):
            await handle.result(timeout=10)
        while not await client.count(status="failed"):  # noqa: ASYNC110 - rows lag behind
            await asyncio.sleep(0)
        broken.clear()
        await handle.rewind()
        await handle.result(timeout=10)
        assert await client.purge_where(status="failed") == 0
        assert await client.get("a") is not None


@in_loop
async def test_it_can_be_rewound_from_the_store_by_the_next_host(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'hub.db'}"
    broken.add("third")
    async with running(store) as runtime:
        handle = await runtime.client.start(chain, instance_id="a")
        with pytest.raises(OrchestrationFailed):
            await handle.result(timeout=10)
    broken.clear()
    async with running(store) as runtime:
        await runtime.client.rewind("a")
    async with running(store) as runtime:
        output = await runtime.client.handle("a", chain).result(timeout=10)
        assert output == ["FIRST", "SECOND", "THIRD"]
    assert (calls["first"], calls["second"]) == (1, 1)


@in_loop
async def test_failed_children_are_rewound_too(store: str) -> None:
    async with running(store) as runtime:
        broken.add("right")
        handle = await runtime.client.start(tree, instance_id="a")
        with pytest.raises(OrchestrationFailed):
            await handle.result(timeout=10)
        broken.clear()
        await handle.rewind()
        assert await handle.result(timeout=10) == ["BEFORE LEFT LEFT", "BEFORE RIGHT RIGHT"]
        assert calls == {"before left": 1, "left": 1, "before right": 1, "right": 2}


@in_loop
async def test_failed_children_are_rewound_from_the_store(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'hub.db'}"
    broken.add("right")
    async with running(store) as runtime:
        handle = await runtime.client.start(tree, instance_id="a")
        with pytest.raises(OrchestrationFailed):
            await handle.result(timeout=10)
    broken.clear()
    async with running(store) as runtime:
        await runtime.client.rewind("a")
        output = await runtime.client.handle("a", tree).result(timeout=10)
        assert output == ["BEFORE LEFT LEFT", "BEFORE RIGHT RIGHT"]
    assert (calls["before right"], calls["right"]) == (1, 2)


@in_loop
async def test_it_fails_again_if_the_reason_is_still_there(store: str) -> None:
    async with running(store) as runtime:
        broken.add("first")
        handle = await runtime.client.start(chain, instance_id="a")
        for _ in range(3):
            with pytest.raises(OrchestrationFailed, match="first is broken"):
                await handle.result(timeout=10)
            await handle.rewind()
        broken.clear()


@in_loop
async def test_only_failed_instances_can_be_rewound() -> None:
    async with running("memory://") as runtime:
        handle = await runtime.client.start(chain, instance_id="a")
        await handle.result(timeout=10)
        with pytest.raises(InstanceNotFailed, match="Completed"):
            await handle.rewind()
        with pytest.raises(InstanceNotFound):
            await runtime.client.rewind("nobody")
