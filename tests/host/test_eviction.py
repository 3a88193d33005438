"""Instances that leave memory, come back by replay, and never notice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import history as h, requests as r
from shardrt.links.messages import Answer, Forward
from shardrt.testing.client import HubClient, Refused
from shardrt.testing.faults import Fault
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.test_ownership import ask
from tests.host.witness import Twins, assert_history, assert_recoverable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.store.base import Checkpoint, Checkpoints

LOADS = {"load", "load_whole"}

app = App()
ended: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ended() -> None:
    ended.clear()


@app.activity
async def note_end(instance_id: str) -> None:
    ended.append(instance_id)


@app.orchestrator
async def tidy(ctx: OrchestrationContext) -> str:
    """Its cleanup does everything that an orchestration can do."""
    try:
        async with asyncio.timeout(3600):
            return await ctx.wait_for_event("go", str)
    finally:
        ctx.set_custom_status("cleaned up")
        ctx.send_event("sink", "ended", ctx.instance_id)
        await ctx.call_activity(note_end, ctx.instance_id)


@app.orchestrator
async def sink(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.wait_for_event("ended", str)]


@app.orchestrator
async def nap(ctx: OrchestrationContext, seconds: int) -> str:
    await ctx.create_timer(timedelta(seconds=seconds))
    return "rested"


@app.orchestrator
async def letters(ctx: OrchestrationContext, count: int) -> list[int]:
    return [await ctx.wait_for_event("letter", int) for _ in range(count)]


@app.orchestrator
async def post(ctx: OrchestrationContext, to: list[str]) -> None:
    for instance_id in to:
        ctx.send_event(instance_id, "letter", 7)


@app.orchestrator
async def quick(ctx: OrchestrationContext, text: str) -> str:
    return text


def play(
    main: Callable[[Hub, HubClient], Awaitable[None]],
    *,
    interval_s: float = 0.1,
    bytes_max: int = 1,
    of: App = app,
) -> None:
    """Run with so little memory that whatever can be evicted is, at each checkpoint."""

    async def run() -> None:
        tiny = Settings(
            shard=ShardSettings(checkpoint_interval_s=interval_s, resident_bytes_max=bytes_max)
        )
        async with Hub(of, partitions=2, shards=1, settings=tiny) as hub:
            Twins(hub)
            await main(hub, HubClient(hub))
            await hub.quiet()
            await assert_recoverable(hub)
            assert hub.broken == []

    run_virtual(run())


def resident(hub: Hub) -> set[str]:
    found: set[str] = set()
    for partition in range(hub.partitions):
        host = hub.host_of(partition)
        assert host is not None
        found |= host.core.instances.keys()
    return found


async def evicted(hub: Hub) -> None:
    await hub.until(lambda: not resident(hub))


def test_an_evicted_instance_gets_its_events_in_order():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("letters", 4, "box!0")
        await evicted(hub)
        await client.raise_event("box!0", "letter", 0)
        await evicted(hub)
        hub.calls.held |= LOADS
        answers = [
            ask(hub, 0, "box!0", r.Raise("letter", Raw(str(number).encode())))
            for number in (1, 2, 3)
        ]
        await pass_time(0.05)
        assert not any(answers)
        hub.calls.held.clear()
        assert await client.result("box!0") == [0, 1, 2, 3]
        assert hub.members[0].shard.turns.replays >= 2

    play(main)


def test_the_timer_of_an_evicted_instance_fires():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("nap", 100, "bed")
        await evicted(hub)
        await pass_time(99)
        assert resident(hub) == set()
        assert await client.result("bed") == "rested"
        events = await assert_history(client, "bed")
        (created,) = [each for each in events if isinstance(each, h.TimerCreated)]
        (fired,) = [each for each in events if isinstance(each, h.TimerFired)]
        assert created.fire_at <= fired.at < created.fire_at + 1_000_000

    play(main)


def test_who_waits_for_an_evicted_instance_is_told():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("nap", 100, "bed!0")
        answers = ask(hub, 0, "bed!0", r.Wait())
        await evicted(hub)
        await pass_time(102)
        assert b"rested" in bytes(answers[0].result)

    play(main)


def test_cleanup_code_does_nothing_when_its_instance_is_evicted():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("sink", None, "sink")
        await client.start("tidy", None, "one")
        for _ in range(3):
            await evicted(hub)
            hub.crash(hub.members[0])
            await pass_time(1)
        hub.revoke(0)
        hub.revoke(1)
        await pass_time(3)
        assert ended == []
        snapshot = await client.get("one")
        assert snapshot is not None
        assert snapshot.custom_status == h.NULL
        await client.raise_event("one", "go", "on")
        assert await client.result("one") == "on"
        assert ended == ["one"]
        assert await client.result("sink") == ["one"]

    play(main)


def test_cleanup_code_does_nothing_when_its_instance_is_terminated():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("tidy", None, "one")
        await client.terminate("one", "enough")
        await pass_time(5)
        assert ended == []
        events = await assert_history(client, "one")
        assert not any(isinstance(each, h.TaskScheduled) for each in events)

    play(main, bytes_max=10**9)


def test_an_instance_that_ended_and_left_is_found_again():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("quick", "a", "one")
        await client.result("one")
        before = await client.history("one")
        await evicted(hub)
        assert await client.result("one") == "a"
        assert await client.history("one") == before
        with pytest.raises(Refused, match="InstanceExists"):
            await client.start("quick", "b", "one")
        with pytest.raises(Refused, match="InstanceFinished"):
            await client.raise_event("one", "go")

    play(main)


def test_what_is_only_read_leaves_memory_again():
    async def main(hub: Hub, client: HubClient) -> None:
        ids = [f"one{number}" for number in range(20)]
        for instance_id in ids:
            await client.start("quick", "a", instance_id)
            await client.result(instance_id)
        await evicted(hub)
        for instance_id in ids:
            assert await client.history(instance_id)
        # Nothing changes any more, so there will be no checkpoint.
        await evicted(hub)
        assert await client.start("quick", "a", "another")

    play(main)


def test_a_finished_instance_restarts_out_of_the_store():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("quick", "a", "one")
        first = await client.wait("one")
        await evicted(hub)
        await client.start("quick", "b", "one", on_conflict="restart")
        assert await client.result("one") == "b"
        second = await client.wait("one")
        assert second.execution_id != first.execution_id
        events = await assert_history(client, "one")
        assert len(events) == 3
        await evicted(hub)
        assert await client.history("one") == events

    play(main)


def test_a_repeated_start_does_not_run_it_again():
    async def main(hub: Hub, client: HubClient) -> None:
        await hub.quiet()
        start = r.Start("quick", Raw(b'"a"'), fresh=True)
        call = Forward(1, 0, r.Origin("asker", 1, 1), "one!0", start)
        answers: list[Answer] = []
        hub.members[0].shard.submit(call, answers.append)
        await hub.until(lambda: answers)
        await evicted(hub)
        hub.members[0].shard.submit(call, answers.append)
        await pass_time(0.02)
        assert [each.refusal for each in answers] == [None, None]
        assert answers[0].result == answers[1].result
        assert resident(hub) == set()

    play(main)


def test_reads_are_right_while_a_checkpoint_is_on_its_way():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("letters", 3, "box")
        for number in range(3):
            await hub.quiet()
            hub.calls.held.add("checkpoint")
            await client.raise_event("box", "letter", number)
            await pass_time(0.3)
            during = await client.history("box")
            snapshot = await client.get("box")
            hub.calls.held.clear()
            await pass_time(0.5)
            assert await client.history("box") == during
            assert await client.get("box") == snapshot
        assert await client.result("box") == [0, 1, 2]

    play(main)


class SlowFor:
    """Passes checkpoints on, those of one partition only when it may."""

    def __init__(self, store: Checkpoints, partition: int) -> None:
        self._store = store
        self._partition = partition
        self.may = asyncio.Event()
        self.truncate = store.truncate
        self.head = store.head

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        if checkpoint.partition == self._partition:
            await self.may.wait()
        await self._store.checkpoint(checkpoint)


def test_nothing_is_evicted_before_its_checkpoint_is_in_the_store():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("letters", 2, "one!0")
        await client.start("letters", 2, "two!1")
        await evicted(hub)
        shard = hub.members[0].shard
        slow = shard.checkpointer._store = SlowFor(shard.checkpointer._store, 1)
        await client.raise_event("two!1", "letter", 0)
        await pass_time(0.3)
        await client.raise_event("one!0", "letter", 0)
        await shard.checkpointer.checkpoint(shard.hosts[0])
        await hub.until(lambda: resident(hub) == {"two!1"})
        slow.may.set()
        await evicted(hub)
        for instance_id in ("one!0", "two!1"):
            await client.raise_event(instance_id, "letter", 1)
            assert await client.result(instance_id) == [0, 1]

    play(main)


def test_nothing_is_evicted_while_somebody_waits_for_a_load():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("letters", 1, "one!0")
        await client.start("letters", 1, "two!0")
        await evicted(hub)
        host = hub.members[0].shard.hosts[0]
        hub.calls.held |= LOADS
        ask(hub, 0, "one!0", r.Get())
        ask(hub, 1, "post!1", r.Start("post", Raw(b'["one!0", "two!0"]'), fresh=True))
        await hub.until(lambda: host.loader.is_loading("two!0"))
        hub.calls.held.clear()
        while "one!0" not in host.core.instances:
            await pass_time(0.0001)
        hub.calls.held |= LOADS
        hub.members[0].shard.checkpointer.evict()
        hub.calls.held.clear()
        # Both events came in one message, which was ready to be taken when the second was read.
        assert await client.result("one!0") == [7]
        assert await client.result("two!0") == [7]

    play(main)


def test_one_that_cannot_be_read_keeps_no_others_in_memory():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("letters", 1, "one!0")
        await client.start("letters", 0, "ended!0")
        hub.calls.held |= LOADS
        ask(hub, 0, "bad!0", r.Get())
        await hub.until(lambda: not resident(hub))
        assert hub.members[0].shard.hosts[0].loader.is_loading("bad!0")
        hub.calls.held.clear()
        await client.raise_event("one!0", "letter", 7)
        assert await client.result("one!0") == [7]

    play(main)


def test_history_is_whole_though_the_journal_could_not_be_cut():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("letters", 6, "box")
        for number in range(6):
            await hub.quiet()
            hub.calls.held.add("truncate")
            hub.calls.plan = FailTruncates()
            await client.raise_event("box", "letter", number)
            await pass_time(0.3)
            hub.calls.held.clear()
            await pass_time(0.02)
        assert await client.result("box") == list(range(6))
        events = await assert_history(client, "box")
        assert sum(isinstance(each, h.EventRaised) for each in events) == 6

    play(main, bytes_max=10**9)


class FailTruncates:
    """Fails every cut of a journal."""

    def fault(self, number: int, name: str) -> Fault | None:
        return Fault.BEFORE if name == "truncate" else None
