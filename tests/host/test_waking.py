"""Many instances that are wanted at once, out of the store."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Raw

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import history as h, requests as r
from shardrt.errors import StoreUnavailable
from shardrt.host import gathering
from shardrt.host.history_reader import HistoryReader
from shardrt.store.memory import MemoryStore
from shardrt.testing.client import HubClient
from shardrt.testing.faults import Fault
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.test_eviction import evicted
from tests.host.test_ownership import ask
from tests.host.test_quarantine import code_of, damage, reopen, stored
from tests.host.witness import Twins, assert_history, assert_recoverable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import pytest

    from shardrt.store.base import HistoryChunk, InstanceKey, InstanceRow, Whole

MANY = [f"i{number}" for number in range(200)]
READS = ("load", "load_whole", "history")

app = App()


@app.activity
async def add_one(value: int) -> int:
    return value + 1


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> list[int]:
    found = [await ctx.call_activity(add_one, 1)]
    return [*found, *[await ctx.wait_for_event("go", int) for _ in range(2)]]


@app.orchestrator
async def nap(ctx: OrchestrationContext) -> int:
    await ctx.create_timer(timedelta(seconds=50))
    return await ctx.call_activity(add_one, 1)


@app.orchestrator
async def teller(ctx: OrchestrationContext, to: list[str]) -> None:
    for instance_id in to:
        ctx.send_event(instance_id, "go", 7)


def play(
    main: Callable[[Hub, HubClient], Awaitable[None]], *, bytes_max: int = 1, shards: int = 1
) -> None:
    async def run() -> None:
        few = Settings(shard=ShardSettings(checkpoint_interval_s=0.1, resident_bytes_max=bytes_max))
        async with Hub(app, partitions=4, shards=shards, settings=few) as hub:
            Twins(hub)
            await main(hub, HubClient(hub))
            await hub.quiet()
            await assert_recoverable(hub)
            assert hub.broken == []
            hosts = [host for each in hub.members for host in each.shard.hosts.values()]
            assert not any(host.history._at_hand for host in hosts)
            assert not any(each.shard.gathering.at_hand_bytes for each in hub.members)

    run_virtual(run())


def reads(hub: Hub) -> Counter[str]:
    """Count what was read since the last time, and begin anew."""
    counts = Counter(each for each in hub.calls.names if each in READS)
    hub.calls.names.clear()
    return counts


async def start_all(client: HubClient, name: str = "waiter") -> None:
    await asyncio.gather(*(client.start(name, None, each) for each in MANY))


async def raise_all(client: HubClient, data: int) -> None:
    await asyncio.gather(*(client.raise_event(each, "go", data) for each in MANY))


async def results(client: HubClient) -> list[object]:
    return list(await asyncio.gather(*(client.result(each) for each in MANY)))


def test_instances_that_are_woken_at_once_are_read_by_few_queries():
    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        reads(hub)
        await raise_all(client, 1)
        await evicted(hub)
        counts = reads(hub)
        assert counts["load"] == counts["history"] == 0
        assert counts["load_whole"] <= 20
        await raise_all(client, 2)
        assert await results(client) == [[2, 1, 2]] * len(MANY)
        for each in MANY[:5]:
            await assert_history(client, each)

    play(main)


def test_timers_that_are_due_at_once_wake_theirs_by_few_queries():
    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client, "nap")
        await evicted(hub)
        await pass_time(45)
        reads(hub)
        assert await results(client) == [2] * len(MANY)
        assert reads(hub)["load_whole"] <= 20

    play(main)


def test_messages_wake_theirs_by_few_queries():
    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        await client.start("teller", MANY, "one")
        await client.start("teller", MANY, "two")
        reads(hub)
        assert await results(client) == [[2, 7, 7]] * len(MANY)
        counts = reads(hub)
        assert counts["load_whole"] <= 20
        assert counts["history"] == 0

    play(main)


def test_what_is_only_looked_at_is_read_without_its_history():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("waiter", None, "one")
        await evicted(hub)
        reads(hub)
        assert await client.get("one")
        assert reads(hub) == {"load": 1}

    play(main)


def test_a_history_that_no_turn_wants_is_not_kept():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("waiter", None, "one")
        await evicted(hub)
        # Too early: it is for nobody's turn, as its instance is suspended by then.
        hub.calls.held_answers.add("load_whole")
        raised = ask(hub, hub_partition(hub, "one"), "one", r.Raise("go", Raw(b"1")))
        suspended = ask(hub, hub_partition(hub, "one"), "one", r.Suspend())
        await pass_time(0.1)
        assert [raised, suspended] == [[], []]
        hub.calls.held_answers.clear()
        await hub.until(lambda: raised and suspended)

    play(main)


def test_code_that_was_evicted_while_it_was_awaited_goes_on_from_its_history():
    """Its row is in memory, as somebody looked at it, and what it did before is not."""

    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("waiter", None, "one!0")
        await stored(hub)
        await reopen(hub)
        await client.get("one!0")
        reads(hub)
        await client.raise_event("one!0", "go", 1)
        await client.raise_event("one!0", "go", 2)
        assert await client.result("one!0") == [2, 1, 2]
        assert reads(hub) == {"history": 1}

    play(main, bytes_max=10**9)


def test_those_that_cannot_be_read_keep_nobody_from_waking():
    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await stored(hub)
        no_row, no_history, short = MANY[10], MANY[100], MANY[150]
        damage(hub, no_row)
        for partition in hub.store._hub.partitions:
            for bad, chunks in ((no_history, b'[["What"]]'), (short, b"[]")):
                if bad in partition.history:
                    partition.history[bad] = dict.fromkeys(partition.history[bad], chunks)
        await reopen(hub)
        good = [each for each in MANY if each not in {no_row, no_history, short}]
        refused = ask(hub, hub_partition(hub, no_row), no_row, r.Raise("go", h.NULL))
        first = [each for each in MANY if each != no_row]
        for data, woken in ((1, first), (2, good)):
            await asyncio.gather(*(client.raise_event(each, "go", data) for each in woken))
        found = await asyncio.gather(*(client.result(each) for each in good))
        assert found == [[2, 1, 2]] * len(good)
        assert refused[0].refusal is not None
        assert refused[0].refusal.code == "InstanceQuarantined"
        assert await code_of(client.raise_event(no_row, "go")) == "InstanceQuarantined"
        for bad in (no_history, short):
            snapshot = await client.get(bad)
            assert snapshot is not None
            assert snapshot.reason.startswith("quarantined: its stored history")
            await client.terminate(bad)
        # Not to be compared: what is in memory cannot be read.
        for each in (no_row, no_history, short):
            await client.call(each, r.Purge(force=True))

    play(main, bytes_max=10**9)


def test_more_than_the_store_can_read_at_once_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch):
    load_whole = MemoryStore.load_whole
    too_large = MANY[10]
    failures = 0

    async def limited(store: MemoryStore, keys: Sequence[InstanceKey]) -> list[Whole]:
        nonlocal failures
        if len(keys) > 3 or any(key.instance_id == too_large for key in keys):
            failures += 1
            raise StoreUnavailable("took too long")
        return await load_whole(store, keys)

    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        await raise_all(client, 1)
        await raise_all(client, 2)
        assert await results(client) == [[2, 1, 2]] * len(MANY)
        assert failures > 1

    monkeypatch.setattr(MemoryStore, "load_whole", limited)
    play(main)


def test_one_that_the_store_fails_to_read_keeps_nobody_from_waking(
    monkeypatch: pytest.MonkeyPatch,
):
    load = MemoryStore.load
    bad: set[str] = set()

    async def failing(store: MemoryStore, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        if any(key.instance_id in bad for key in keys):
            raise StoreUnavailable("took too long")
        return await load(store, keys)

    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        bad.add(MANY[0])
        looked = [asyncio.ensure_future(client.get(each)) for each in MANY]
        await pass_time(120)
        assert [each.done() for each in looked] == [each not in bad for each in MANY]
        bad.clear()
        assert all(await asyncio.gather(*looked))

    monkeypatch.setattr(MemoryStore, "load", failing)
    play(main)


def test_histories_are_read_ahead_only_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    """Those who are sent a message are all read before any of them goes on."""
    bytes_max, seen = 2000, 0
    monkeypatch.setattr(gathering, "AT_HAND_BYTES_MAX", bytes_max)
    keep = HistoryReader.keep

    def watched(reader: HistoryReader, instance_id: str, chunks: Sequence[HistoryChunk]) -> None:
        nonlocal seen
        keep(reader, instance_id, chunks)
        held = [chunk for each in reader._at_hand.values() for chunk in each]
        seen = max(seen, sum(len(each.events) for each in held))

    monkeypatch.setattr(HistoryReader, "keep", watched)
    monkeypatch.setattr(gathering, "KEYS_MAX", 8)

    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        await client.start("teller", MANY, "one")
        await client.start("teller", MANY, "two")
        assert await results(client) == [[2, 7, 7]] * len(MANY)
        assert 0 < seen < 2 * bytes_max

    play(main)


def hub_partition(hub: Hub, instance_id: str) -> int:
    (found,) = [
        number
        for number, partition in enumerate(hub.store._hub.partitions)
        if instance_id in partition.instances
    ]
    return found


def test_who_loses_its_partitions_while_it_reads_wakes_nobody():
    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        hub.calls.held_answers.add("load_whole")
        woken = asyncio.gather(raise_all(client, 1))
        await hub.until(lambda: hub.calls.names.count("load_whole") >= 2)
        for partition in (0, 1):
            await hub.depose(partition)
        hub.crash(hub.owners[2])
        await pass_time(1)
        hub.calls.held_answers.clear()
        await woken
        await raise_all(client, 2)
        assert await results(client) == [[2, 1, 2]] * len(MANY)
        for each in MANY[::20]:
            await assert_history(client, each)

    play(main, shards=2)


def test_a_store_that_fails_is_asked_again():
    async def main(hub: Hub, client: HubClient) -> None:
        await start_all(client)
        await evicted(hub)
        hub.calls.plan = FailReads(3)
        await raise_all(client, 1)
        await evicted(hub)
        hub.calls.plan = FailReads(3)
        await raise_all(client, 2)
        assert await results(client) == [[2, 1, 2]] * len(MANY)

    play(main)


class FailReads:
    """Fails the next so many reads of instances."""

    def __init__(self, count: int) -> None:
        self._left = count

    def fault(self, number: int, name: str) -> Fault | None:
        if name not in READS or self._left == 0:
            return None
        self._left -= 1
        return Fault.AFTER
