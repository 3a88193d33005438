"""Five orders under chaos: each is completed or compensated, none hangs or is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from shardrt import App, Runtime
from shardrt.samples import chaos
from shardrt.samples.chaos import Fate, demonstrate_resources, process_orders
from shardrt.testing import Environment, run_virtual, simulate
from shardrt.testing.chaos import (
    BasicChaosAgent,
    ChaosConfiguration,
    SafeChaosAgent,
    use_chaos,
)

if TYPE_CHECKING:
    from pathlib import Path

    from shardrt.client import Client

STORES = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.pg)]
ORDERS = [f"{n}" for n in range(5)]
TIMEOUT_S = 40.0


class World:
    """What the activities did, which is what must add up."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    async def take_step(self, step: tuple[str, str]) -> str:
        order, what = step
        self.there.add(f"{what}-{order}")
        return f"{what}-{order}"

    async def undo_step(self, receipt: str) -> None:
        self.there.discard(receipt)

    def check(self, fates: list[Fate]) -> None:
        assert [fate.order for fate in fates] == ORDERS
        assert {fate.status for fate in fates} <= {"completed", "compensated"}
        steps = ("reserve", "charge", "ship")
        completed = [fate.order for fate in fates if fate.status == "completed"]
        assert self.there == {f"{what}-{order}" for order in completed for what in steps}

    @property
    def stubs(self) -> dict[str, object]:
        return {"take_step": self.take_step, "undo_step": self.undo_step}


def a_chaotic_app(seed: int, failing: float) -> App:
    app = App()
    app.include(chaos.app)
    configuration = ChaosConfiguration(
        enabled=True, default_failure_probability=failing, default_latency_delay=0.005
    )
    assert use_chaos(app, BasicChaosAgent(random.Random(seed)), configuration)
    return app


def test_each_order_ends_well_or_as_if_it_had_never_been():
    statuses: Counter[str] = Counter()
    for seed in range(30):
        world = World()

        async def main(seed: int = seed, world: World = world) -> list[Fate]:
            async with Environment(a_chaotic_app(seed, 0.4), stubs=world.stubs) as env:  # type: ignore[arg-type]
                return await process_orders(env.client, ORDERS)

        fates = run_virtual(main())
        world.check(fates)
        statuses.update(fate.status for fate in fates)
    assert statuses.total() == 30 * len(ORDERS)
    assert min(statuses["completed"], statuses["compensated"]) > 20


def test_so_they_do_when_the_host_crashes_as_well():
    for seed in range(20):
        world = World()

        async def scenario(client: Client, world: World = world) -> None:
            world.check(await process_orders(client, ORDERS))

        simulate(a_chaotic_app(seed, 0.3), scenario, seeds=[seed], stubs=world.stubs)  # type: ignore[arg-type]


@pytest.mark.parametrize("store", STORES)
def test_so_they_do_on_every_store(store: str, tmp_path: Path, request: pytest.FixtureRequest):
    urls = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/hub.db",
        "postgres": lambda: str(request.getfixturevalue("hub_dsn")),
    }
    url = urls[store]()

    async def main() -> list[Fate]:
        app = a_chaotic_app(7, 0.3)
        settings = {"store.unsafe": True}
        async with Runtime(app, store=url, partitions=2, settings=settings) as runtime:
            async with asyncio.timeout(TIMEOUT_S):
                return await process_orders(runtime.client, ORDERS)

    fates = asyncio.run(main())
    assert {fate.status for fate in fates} <= {"completed", "compensated"}
    assert [fate.order for fate in fates] == ORDERS


def test_resources_run_short_for_as_long_as_said_and_no_longer():
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    agent = BasicChaosAgent(random.Random(1), nap)
    everything = ChaosConfiguration(
        enabled=True,
        resource_exhaustion_enabled=True,
        network_partition_enabled=True,
        max_resource_exhaustion_duration=1.5,
    )
    asyncio.run(demonstrate_resources(SafeChaosAgent(agent, everything)))
    assert naps == [1.5, 1.0, 1.0]
    assert agent.injected == {"memory": 1, "cpu": 1, "partition": 1}


def test_the_sample_tells_how_each_order_ended(monkeypatch: pytest.MonkeyPatch):
    async def at_once(agent: object) -> None: ...

    monkeypatch.setattr(chaos, "demonstrate_resources", at_once)
    done = CliRunner().invoke(chaos.main, ["--seed", "7"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"order {n}" for n in ORDERS]
