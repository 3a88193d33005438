"""Rewinding families while shards die, and while hardly anything stays in memory."""

from __future__ import annotations

import pytest

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import requests as r
from shardrt.core.history import Status
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual

SETTINGS = Settings(shard=ShardSettings(checkpoint_interval_s=0.02, resident_bytes_max=1))
LEAVES = 4

app = App()
broken: set[str] = set()
recorded: list[str] = []


@app.activity
async def work(name: str) -> str:
    await pass_time(0.01)
    if name in broken:
        raise OSError(name)
    recorded.append(name)
    return name


@app.orchestrator
async def leaf(ctx: OrchestrationContext, name: str) -> str:
    await ctx.call_activity(work, f"before {name}")
    return await ctx.call_activity(work, name)


@app.orchestrator
async def root(ctx: OrchestrationContext) -> list[str]:
    calls = [
        ctx.call_sub_orchestrator(leaf, str(n), instance_id=f"leaf-{n}!{n}") for n in range(LEAVES)
    ]
    return [await call for call in calls]


async def family(hub: Hub, client: HubClient) -> None:
    await client.start("root", instance_id="root!0")
    assert (await client.wait("root!0")).status is Status.FAILED
    await pass_time(hub.random.uniform(0.0, 0.3))
    broken.clear()
    hub.crash(hub.random.choice(hub.members))
    await client.call("root!0", r.Rewind())
    for _ in range(3):
        await pass_time(hub.random.uniform(0.0, 0.05))
        hub.crash(hub.random.choice(hub.members))
    assert await client.result("root!0") == [str(n) for n in range(LEAVES)]


@pytest.mark.runs(15)
def test_a_family_is_rewound_whatever_shard_dies(seed: int) -> None:
    broken.update({"1", "before 2"})
    recorded.clear()

    async def main() -> None:
        async with Hub(app, settings=SETTINGS, seed=seed) as hub:
            client = HubClient(hub)
            await family(hub, client)
            await hub.quiet()
            for n in range(LEAVES):
                snapshot = await client.get(f"leaf-{n}!{n}")
                assert snapshot is not None
                assert snapshot.status is Status.COMPLETED
            assert hub.broken == []

    run_virtual(main())
    assert {*recorded} == {each for n in range(LEAVES) for each in (str(n), f"before {n}")}


def test_without_any_death_nothing_that_succeeded_runs_again() -> None:
    broken.update({"1", "before 2"})
    recorded.clear()

    async def main() -> None:
        async with Hub(app, settings=SETTINGS) as hub:
            client = HubClient(hub)
            await client.start("root", instance_id="root!0")
            assert (await client.wait("root!0")).status is Status.FAILED
            await pass_time(1)  # everything is in the store only
            broken.clear()
            await client.call("root!0", r.Rewind())
            assert await client.result("root!0") == [str(n) for n in range(LEAVES)]

    run_virtual(main())
    assert sorted(recorded) == sorted(
        [*map(str, range(LEAVES))] + [f"before {n}" for n in range(LEAVES)]
    )
