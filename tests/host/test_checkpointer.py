"""What a checkpoint does when its store has something against it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import requests as r
from shardrt.errors import StoreUnavailable
from shardrt.host.checkpointer import row_of_entity
from shardrt.store.paging import OutOfBounds
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.core import samples
from tests.host.test_ownership import ask, code_of

if TYPE_CHECKING:
    from shardrt.store.base import Checkpoint

app = App()


@app.orchestrator
async def listener(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


@app.orchestrator
async def restless(ctx: OrchestrationContext, count: int) -> None:
    await ctx.create_timer(timedelta(milliseconds=10))
    ctx.continue_as_new(count + 1)


@app.orchestrator
async def ticking(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(milliseconds=300))
    ctx.continue_as_new()


def test_rows_of_limiters_are_told_from_those_of_entities():
    assert row_of_entity(samples.ENTITY).status == "Entity"
    assert row_of_entity(samples.LIMITER).status == "Limit"
    assert row_of_entity(samples.LIMITER).next_due == samples.LIMITER.next_due


def test_what_no_store_can_write_stops_its_own_partition_only():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            client = HubClient(hub)
            store = hub.members[0].store._store
            write = store.checkpoint

            async def checkpoint(checkpoint: Checkpoint) -> None:
                if checkpoint.partition == 0 and checkpoint.upserts:
                    raise OverflowError("a number that fits no column")
                await write(checkpoint)

            store.checkpoint = checkpoint  # type: ignore[method-assign]
            await client.start("listener", None, "good!1")
            await client.start("listener", None, "bad!0")
            await pass_time(5.0)
            assert set(hub.broken) == {"OverflowError: a number that fits no column"}
            assert hub.crashes == 0
            await client.raise_event("good!1", "go", "on")
            assert await client.result("good!1") == "on"

    run_virtual(main())


@pytest.mark.parametrize(("partitions", "written_s_max"), [(16, 1.2), (96, 3.3)])
def test_with_very_many_partitions_each_has_its_turn_more_seldom(
    partitions: int, written_s_max: float
):
    """Where 32 or fewer change, each is written within an interval; of 96, within three."""

    async def main() -> None:
        async with Hub(app, partitions=partitions, shards=1) as hub:
            client = HubClient(hub)
            await pass_time(10.0)
            store = hub.members[0].store._store
            write = store.checkpoint
            written: dict[int, list[float]] = {}

            async def checkpoint(checkpoint: Checkpoint) -> None:
                times = written.setdefault(checkpoint.partition, [])
                times.append(asyncio.get_running_loop().time())
                await write(checkpoint)

            store.checkpoint = checkpoint  # type: ignore[method-assign]
            for number in range(partitions):
                await client.start("ticking", None, f"one!{number}")
            await pass_time(13.0)
            assert len(written) == partitions
            apart = [
                later - earlier
                for times in written.values()
                for earlier, later in pairwise(times[2:])
            ]
            assert written_s_max - 0.5 < max(apart) < written_s_max

    run_virtual(main())


def small(unsaved_bytes_max: int = 128 << 20) -> Settings:
    shard = ShardSettings(
        checkpoint_interval_s=0.2,
        checkpoint_bytes_max=1_000,
        journal_unsaved_bytes_max=unsaved_bytes_max,
    )
    return Settings(shard=shard)


class Picky:
    """Refuses checkpoints of partition 0, or does not answer them, for as long as it says so."""

    def __init__(self, hub: Hub, *, answers: bool = True) -> None:
        self.refuses = True
        self.tries = 0
        self._answers = answers
        self._store = hub.members[0].store._store
        self._write = self._store.checkpoint
        self._store.checkpoint = self.checkpoint  # type: ignore[method-assign]

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        if checkpoint.partition == 0 and self.refuses:
            self.tries += 1
            if not self._answers:
                await asyncio.Event().wait()
            raise StoreUnavailable("disk full")
        await self._write(checkpoint)


@pytest.mark.parametrize("answers", [True, False])
def test_a_checkpoint_that_fails_for_good_holds_up_no_other(answers: bool):
    async def main() -> None:
        async with Hub(app, partitions=3, shards=1, settings=small()) as hub:
            client = HubClient(hub)
            await hub.quiet()
            Picky(hub, answers=answers)
            for number in range(3):
                await client.start("listener", None, f"one!{number}")
            hosts = hub.members[0].shard.hosts
            within_s = 2.0 if answers else 20.0
            for _ in range(3):
                for number in (1, 2):
                    await client.raise_event(f"one!{number}", "other")
                await hub.until(lambda: not (hosts[1].core.dirty or hosts[2].core.dirty), within_s)
                await hub.until(
                    lambda: all(
                        h.checkpoint_lsn >= h.release.sealed - 1 for h in (hosts[1], hosts[2])
                    )
                )
            assert not hub.broken

    run_virtual(main())


def test_a_partition_is_given_up_whose_durable_records_the_store_has_lost(
    caplog: pytest.LogCaptureFixture,
):
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=small()) as hub:
            client = HubClient(hub)
            await hub.quiet()
            store = hub.members[0].store._store
            write = store.checkpoint

            async def lost(_: Checkpoint) -> None:
                store.checkpoint = write  # type: ignore[method-assign]
                raise OutOfBounds("checkpoint at LSN 30 is outside 0..7")

            store.checkpoint = lost  # type: ignore[method-assign,assignment]
            await client.start("listener", None, "one")
            await hub.until(lambda: "is given up" in caplog.text)
            await client.raise_event("one", "go", "on")
            assert await client.result("one") == "on"
            assert not hub.broken
            assert "Traceback" not in caplog.text

    run_virtual(main())


def test_it_is_tried_with_growing_pauses():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=small()) as hub:
            store = Picky(hub)
            await HubClient(hub).start("listener", None, "one!0")
            await pass_time(60.0)
            assert 10 < store.tries < 25
            assert 59.0 < hub.members[0].shard.counters()["checkpoint_wait_s"] <= 60.0
            store.refuses = False
            await pass_time(6.0)
            assert hub.members[0].shard.counters()["checkpoint_wait_s"] == 0.0

    run_virtual(main())


def test_a_partition_without_checkpoints_stands_still_at_its_bound():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1, settings=small(20_000)) as hub:
            client = HubClient(hub)
            await client.start("listener", None, "one!0")
            await client.start("restless", 0, "busy!0")
            host = hub.members[0].shard.hosts[0]
            await hub.until(lambda: host.checkpoint_lsn > 3)
            store = Picky(hub)
            await hub.until(host.is_full)
            turns = hub.members[0].shard.turns
            await pass_time(5.0)
            standing = host.core.instances["busy!0"].execution_id
            written = host.unsaved_bytes
            await pass_time(5.0)
            assert host.core.instances["busy!0"].execution_id == standing
            assert 20_000 <= host.unsaved_bytes == written < 60_000
            assert turns.running == ""
            refused = ask(hub, 0, "one!0", r.Raise("other"))
            assert code_of(refused) == "Overloaded"
            assert (await client.get("one!0")) is not None
            await client.terminate("one!0")  # what lessens the work is taken
            await client.start("listener", None, "one!1")
            store.refuses = False
            await hub.until(lambda: not host.is_full())
            await hub.until(lambda: host.core.instances["busy!0"].execution_id != standing)
            await client.start("listener", None, "two!0")
            assert not hub.broken

    run_virtual(main())
