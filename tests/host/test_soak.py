"""Everything goes wrong at random for a while; then nothing does, and all must finish."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import history as h, requests as r
from shardrt.testing.client import HubClient
from shardrt.testing.faults import RandomFaults
from shardrt.testing.hub import Hub
from shardrt.testing.network import Weather
from shardrt.testing.storm import depose
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.flows import DRIVES, app
from tests.host.witness import (
    Twins,
    assert_history,
    assert_no_slots,
    assert_recoverable,
    instances_of,
)

if TYPE_CHECKING:
    from shardrt.core.history import HistoryEvent

STORM_S = 6.0
FINISH_S = 300.0


def settings_of(random: Random) -> Settings:
    return Settings(
        shard=ShardSettings(
            checkpoint_interval_s=random.choice((0.01, 0.05, 0.3)),
            checkpoint_bytes_max=random.choice((1_000, 1_000_000)),
            resident_bytes_max=random.choice((20_000, 1_000_000)),
            activity_concurrency_max=random.choice((2, 100)),
        )
    )


async def soak(seed: int) -> Hub:
    random = Random(f"mix {seed}")
    hub = Hub(
        app,
        seed=seed,
        shards=random.randint(2, 3),
        partitions=random.randint(2, 5),
        settings=settings_of(random),
        latency_s=(0, random.choice((0.001, 0.01, 0.05))),
        weather=Weather(
            delay_s=(0, random.choice((0.001, 0.02, 0.2))),
            loss=random.choice((0, 0.02, 0.2)),
            repetition=random.choice((0, 0.02, 0.2)),
        ),
    )
    faults = RandomFaults(hub.random, random.choice((0, 0.02, 0.1)))
    hub.calls.plan = faults
    async with hub:
        twins = Twins(hub)
        clients = [HubClient(hub, f"c{number}") for number in range(6)]
        async with asyncio.timeout(FINISH_S), asyncio.TaskGroup() as group:
            for client in clients:
                flows = random.sample(sorted(DRIVES), k=2)
                group.create_task(drive_all(client, flows, random.random()))
            await storm(hub, random)
            faults.rate = 0
            hub.air.weather = Weather()
        await hub.quiet()
        assert hub.broken == []
        assert twins.compared > 0
        await verify(hub, clients)
        return hub


async def drive_all(client: HubClient, flows: list[str], delay_s: float) -> None:
    name = client.name
    for flow in flows:
        await pass_time(delay_s)
        client.name = f"{name}.{flow}"
        await DRIVES[flow](client)


async def storm(hub: Hub, random: Random) -> None:
    """Crash, hand over and depose."""
    rate = random.choice((0, 0.3, 1.0))
    elapsed_s = 0.0
    while elapsed_s < STORM_S:
        elapsed_s += (rest_s := random.uniform(0.05, 0.6))
        await pass_time(rest_s)
        if random.random() >= rate:
            continue
        partition = random.randrange(hub.partitions)
        match random.choice(("crash", "revoke", "depose")):
            case "crash":
                hub.crash(random.choice(hub.members))
            case "revoke":
                hub.revoke(partition)
            case _:
                await depose(hub, partition, random.uniform(0, 0.3))


async def verify(hub: Hub, clients: list[HubClient]) -> None:
    asker = HubClient(hub, "asker")
    histories = {each: await assert_history(asker, each) for each in instances_of(hub)}
    for client in clients:
        for each in client.acknowledged:
            if isinstance(each.request, r.Start):
                assert each.instance_id in histories, f"{each} was acknowledged and is lost"
    raised = Counter(
        each.instance_id
        for client in clients
        for each in client.acknowledged
        if isinstance(each.request, r.Raise)
    )
    for instance_id, count in raised.items():
        assert events_in(histories[instance_id]) <= count
    await assert_no_slots(hub)
    await assert_recoverable(hub)


def events_in(history: list[HistoryEvent]) -> int:
    return sum(isinstance(each, h.EventRaised) for each in history)


@pytest.mark.runs(40)
def test_whatever_goes_wrong_everything_finishes(seed: int):
    run_virtual(soak(seed))


@pytest.mark.runs(2)
def test_the_same_seed_gives_the_same_trace(seed: int):
    one, other = run_virtual(soak(seed)), run_virtual(soak(seed))
    assert len(one.trace) > 100
    assert one.trace == other.trace


def test_old_owners_try_to_write_and_are_refused():
    assert sum(run_virtual(soak(seed)).calls.fenced for seed in range(5)) > 0
