"""Every kind of damage to a store is found, and a store without damage has none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import codec, entries as e, history as h, requests as r
from shardrt.core.state import Head, Lane
from shardrt.host.verifying import Report, verify
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.store.memory import MemoryStore

app = App()


@app.orchestrator
async def child(ctx: OrchestrationContext) -> str:
    return str(await ctx.wait_for_event("go"))


@app.orchestrator
async def mother(ctx: OrchestrationContext) -> str:
    return str(await ctx.call_sub_orchestrator(child, instance_id="kid!0"))


@app.entity
class Counter:
    value: int = 0

    def add(self, value: int) -> int:
        self.value += value
        return self.value


async def made() -> MemoryStore:
    """Return what a hub leaves whose shards were killed: rows, and a journal behind them."""
    settings = Settings(shard=ShardSettings(checkpoint_interval_s=0.2))
    async with Hub(app, partitions=2, settings=settings) as hub:
        client = HubClient(hub)
        await client.start("child", None, "one!0", tags={"k": "v"})
        await client.raise_event("one!0", "other")
        await client.start("mother", None, "mother!1")
        await client.call("@counter@a!1", r.SignalEntity("add", msgspec.Raw(b"1")))
        await hub.quiet()
        hosts = [hub.host_of(number) for number in (0, 1)]
        await hub.until(
            lambda: all(not each.core.dirty and each.checkpoint_lsn > 1 for each in hosts if each)
        )
        for number in range(3):
            await client.raise_event("one!0", "other", number)
        await client.start("child", None, "ended!0")
        await client.terminate("ended!0")
        for member in hub.members:
            hub.crash(member)
    store = hub.store.sibling()
    await store.open()
    return store


def checked(damage: Callable[[Any], None] = lambda _: None, **options: Any) -> Report:
    async def main() -> Report:
        store = await made()
        damage(store._hub.partitions)
        return await verify(store, **options)

    return run_virtual(main())


def test_what_killed_shards_leave_fits() -> None:
    report = checked()
    assert report.findings == []
    assert report.partitions == 2
    assert report.records >= 3
    assert (report.instances, report.entities) == (3, 1)
    assert report.events > 5


# -- damage ------------------------------------------------------------------------------------


def row(partition: Any, instance_id: str, **changes: Any) -> None:
    found = partition.instances[instance_id]
    partition.instances[instance_id] = msgspec.structs.replace(found, **changes)


def head(partition: Any, change: Callable[[Head], None]) -> None:
    stored = codec.decode_head(partition.state)
    change(stored)
    partition.state = codec.encode_head(stored)


def record(partition: Any, *entries: e.Entry) -> None:
    partition.commit_lsn += 1
    partition.journal[partition.commit_lsn] = codec.encode_record(entries)


def journal_gap(partitions: Any) -> None:
    del partitions[0].journal[partitions[0].commit_lsn - 1]


def journal_end(partitions: Any) -> None:
    del partitions[0].journal[partitions[0].commit_lsn]


def journal_bytes(partitions: Any) -> None:
    lsn = partitions[0].commit_lsn
    partitions[0].journal[lsn] = partitions[0].journal[lsn].replace(b"ended", b"ENDED")


def journal_that_does_not_fit(partitions: Any) -> None:
    record(partitions[0], e.Suspended(1, "nobody!0"))


def checkpoint_bytes(partitions: Any) -> None:
    partitions[0].state = partitions[0].state[:-1]


def checkpoint_of_another(partitions: Any) -> None:
    partitions[0].state = partitions[1].state


def checkpoint_ahead(partitions: Any) -> None:
    partitions[0].checkpoint_lsn = partitions[0].commit_lsn + 1


def checkpoint_of_the_future(partitions: Any) -> None:
    head(partitions[0], lambda stored: setattr(stored, "epoch", 99))


def owner_without_claim(partitions: Any) -> None:
    partitions[1].owner, partitions[1].epoch = "host/1", 0
    head(partitions[1], lambda stored: setattr(stored, "epoch", 0))


def state_bytes(partitions: Any) -> None:
    row(partitions[1], "mother!1", state=b'{"instance_id":"mother!1"')


def state_of_another(partitions: Any) -> None:
    row(partitions[1], "@counter@a!1", state=b"{}")


def status_column(partitions: Any) -> None:
    row(partitions[1], "mother!1", status="Completed")


def due_column(partitions: Any) -> None:
    row(partitions[1], "mother!1", next_due=5)


def active_column(partitions: Any) -> None:
    row(partitions[0], "one!0", active=True)


def tags_column(partitions: Any) -> None:
    row(partitions[0], "one!0", tags={"k": "w"})


def history_gap(partitions: Any) -> None:
    chunks = partitions[1].history["mother!1"]
    (key, events), *_ = chunks.items()
    chunks.clear()
    chunks[(key[0], key[1] + 1)] = events


def history_missing(partitions: Any) -> None:
    partitions[1].history["mother!1"].clear()


def history_bytes(partitions: Any) -> None:
    chunks = partitions[1].history["mother!1"]
    for key in chunks:
        chunks[key] = b'[["What",1]]'


def history_of_another_story(partitions: Any) -> None:
    chunks = partitions[1].history["mother!1"]
    ((key, events),) = chunks.items()
    chunks[key] = codec.encode_history(
        [h.OrchestratorStarted(1)] * len(codec.decode_history(events))
    )


def double(partitions: Any) -> None:
    partitions[0].instances["mother!1"] = partitions[1].instances["mother!1"]


def misplaced(partitions: Any) -> None:
    partitions[0].instances["mother!1"] = partitions[1].instances.pop("mother!1")


def received_what_was_not_sent(partitions: Any) -> None:
    head(partitions[0], lambda stored: stored.received.update({1: 77}))


def acknowledged_what_was_not_received(partitions: Any) -> None:
    head(partitions[1], lambda stored: stored.lanes.update({0: Lane(acknowledged=77)}))


DAMAGE = [
    (journal_gap, "journal", "is missing|jumps"),
    (journal_end, "journal", "journal ends at"),
    (journal_bytes, "journal", "checksum does not fit"),
    (journal_that_does_not_fit, "replay", "KeyError: 'nobody!0'"),
    (checkpoint_bytes, "checkpoint", "checksum does not fit"),
    (checkpoint_of_another, "journal", "checkpoint is of partition 1 of 2, not of 0 of 2"),
    (checkpoint_ahead, "checkpoint", "is ahead of the journal"),
    (checkpoint_of_the_future, "checkpoint", "of epoch 99, later than its own"),
    (owner_without_claim, "owner", "was never claimed"),
    (state_bytes, "row", "cannot be decoded"),
    (state_of_another, "row", "cannot be decoded"),
    (status_column, "column", "column status says 'Completed', its state .*Running"),
    (due_column, "column", "column next_due says 5, its state None"),
    (active_column, "column", "column active says True, its state False"),
    (tags_column, "column", "column tags says"),
    (history_gap, "history", "has a gap: event 0 is followed by 1"),
    (history_missing, "history", "has 0 events, its state speaks of"),
    (history_bytes, "history", "from event 0 on cannot be decoded"),
    (history_of_another_story, "history", "does not begin with its start"),
    (double, "double", "more than one row"),
    (misplaced, "place", "not in partition 1"),
    (received_what_was_not_sent, "stream", "has 77 messages of partition 1, which sent"),
    (acknowledged_what_was_not_received, "stream", "was told that 77 arrived"),
]


@pytest.mark.parametrize(
    ("damage", "kind", "text"), DAMAGE, ids=lambda each: getattr(each, "__name__", "")
)
def test_damage_is_found(damage: Callable[[Any], None], kind: str, text: str) -> None:
    findings = checked(damage).findings
    assert kind in {each.kind for each in findings}
    found = [each for each in findings if each.kind == kind and re.search(text, each.text)]
    assert found, findings
    assert found[0].advice


def test_only_what_was_asked_for_is_told() -> None:
    def both(partitions: Any) -> None:
        journal_bytes(partitions)
        status_column(partitions)

    assert {each.partition for each in checked(both).findings} == {0, 1}
    assert {each.partition for each in checked(both, only=1).findings} == {1}
    assert {each.partition for each in checked(both, only=0).findings} == {0}


def test_hosts_at_work_are_not_taken_for_damage() -> None:
    async def main() -> None:
        settings = Settings(shard=ShardSettings(checkpoint_interval_s=0.02))
        async with Hub(app, partitions=2, settings=settings) as hub:
            client = HubClient(hub)
            await client.start("child", None, "one!0")
            store: Any = hub.members[0].store
            for number in range(20):
                await client.raise_event("one!0", "other", number)
                await client.start("mother", None, f"mother-{number}!{number % 2}")
                report = await verify(store)
                assert report.findings == [], number

    run_virtual(main())
