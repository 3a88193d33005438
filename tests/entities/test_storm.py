"""Transfers while everything goes wrong: shards die, storage fails, messages are lost."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import Raw

from shardrt.core import requests as r
from shardrt.core.codec import decode_entity
from shardrt.core.entity import is_entity_id
from shardrt.core.history import Status
from shardrt.testing.client import HubClient, Refused
from shardrt.testing.faults import RandomFaults
from shardrt.testing.hub import Hub
from shardrt.testing.network import Weather
from shardrt.testing.virtual import pass_time, run_virtual
from tests.entities.bank import app
from tests.host.test_soak import settings_of, storm
from tests.host.witness import Twins, assert_recoverable

if TYPE_CHECKING:
    from shardrt.core.entity import Entity

KEYS = ["a", "b", "c", "d"]
FINISH_S = 600.0

_snapshot = msgspec.json.Decoder(r.Snapshot)


def hub_of(seed: int) -> tuple[Hub, Random, RandomFaults]:
    random = Random(f"bank {seed}")
    hub = Hub(
        app,
        seed=seed,
        shards=random.randint(2, 3),
        partitions=random.randint(1, 5),
        settings=settings_of(random),
        latency_s=(0, random.choice((0.001, 0.01))),
        weather=Weather(
            delay_s=(0, random.choice((0.001, 0.02, 0.1))),
            loss=random.choice((0, 0.02, 0.2)),
            repetition=random.choice((0, 0.02, 0.2)),
        ),
    )
    faults = RandomFaults(hub.random, random.choice((0, 0.02, 0.1)))
    hub.calls.plan = faults
    return hub, random, faults


async def weathered(
    hub: Hub, random: Random, faults: RandomFaults, *drives: Any
) -> dict[str, Entity]:
    """Drive through a storm, and then until everything is done; return what is left."""
    async with hub:
        twins = Twins(hub)
        async with asyncio.timeout(FINISH_S), asyncio.TaskGroup() as group:
            for drive in drives:
                group.create_task(drive)
            await storm(hub, random)
            faults.rate = 0
            hub.air.weather = Weather()
        await hub.until(lambda: all_free(hub), 60)
        await hub.quiet()
        assert hub.broken == []
        assert twins.compared > 0
        await assert_recoverable(hub)
        return entities(hub)


async def result_of(client: HubClient, instance_id: str) -> r.Snapshot:
    return _snapshot.decode(await client.call(instance_id, r.Wait()))


async def moves(client: HubClient, random: Random, count: int) -> None:
    for _ in range(count):
        source, target = random.sample(KEYS, 2)
        order = {"source": source, "target": target, "amount": random.randint(1, 99)}
        name = await client.start("move", order)
        assert (await result_of(client, name)).status is Status.COMPLETED


async def audits(client: HubClient, count: int) -> None:
    for _ in range(count):
        found = await result_of(client, await client.start("audit", KEYS))
        assert bytes(found.output) == b"0", "a transfer can be seen half done"


async def holders(client: HubClient, random: Random, count: int) -> None:
    """Take locks, and end in the middle of it."""
    for _ in range(count):
        keys = random.sample(KEYS, random.randint(1, len(KEYS)))
        name = await client.start("hold", keys)
        await pass_time(random.uniform(0, 0.3))
        try:
            if random.random() < 0.5:
                await client.terminate(name)
            else:
                await client.raise_event(name, "go", "on")
        except Refused as refused:
            ended = refused.code == "InstanceFinished"
            assert ended, refused  # noqa: PT017 - it may as well succeed
        await result_of(client, name)


async def deposits(client: HubClient, count: int) -> None:
    for number in range(count):
        payload = Raw(b"%d" % 10**number)
        await client.call("@account@e", r.SignalEntity("add", payload))
        await client.call("@account@e", r.CallEntity("add", payload))


def entities(hub: Hub) -> dict[str, Entity]:
    found: dict[str, Entity] = {}
    for partition in hub.store._hub.partitions:
        for instance_id, row in partition.instances.items():
            if is_entity_id(instance_id):
                found[instance_id] = decode_entity(row.state)
    for number in range(hub.partitions):
        host = hub.host_of(number)
        found |= {} if host is None else host.core.entities
    return found


def all_free(hub: Hub) -> bool:
    hosts = [hub.host_of(number) for number in range(hub.partitions)]
    if any(host is None for host in hosts):
        return False
    return all(each.lock is None and not each.inbox for each in entities(hub).values())


@pytest.mark.runs(15)
def test_no_transfer_is_ever_seen_half_done(seed: int):
    hub, random, faults = hub_of(seed)
    clients = [HubClient(hub, f"c{number}") for number in range(5)]
    drives = [moves(client, random, 4) for client in clients[:4]]
    left = run_virtual(weathered(hub, random, faults, *drives, audits(clients[4], 4)))
    balances = [msgspec.json.decode(each.state[0])["balance"] for each in left.values()]
    assert len(balances) == len(KEYS)
    assert sum(balances) == 0


@pytest.mark.runs(15)
def test_whoever_ends_leaves_no_lock_behind(seed: int):
    hub, random, faults = hub_of(seed)
    clients = [HubClient(hub, f"c{number}") for number in range(5)]
    drives = [holders(client, random, 4) for client in clients[:3]]
    drives += [moves(clients[3], random, 3), audits(clients[4], 3)]
    run_virtual(weathered(hub, random, faults, *drives))


@pytest.mark.runs(10)
def test_each_operation_is_carried_out_once(seed: int):
    hub, random, faults = hub_of(seed)
    left = run_virtual(weathered(hub, random, faults, deposits(HubClient(hub, "c"), 8)))
    (entity,) = left.values()
    assert bytes(entity.state[0]) == b'{"balance":22222222}'
