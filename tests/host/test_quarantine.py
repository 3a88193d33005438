"""Rows and histories that cannot be read: one instance stops, its partition goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import Raw

from shardrt import App, OrchestrationContext, RetryPolicy
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import history as h, requests as r
from shardrt.links.admin import EntityPage, ListEntities, ListInstances, SnapshotPage
from shardrt.links.messages import Ask
from shardrt.store.base import Filter, InstanceRow
from shardrt.testing.client import HubClient, Refused
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.links.admin import Question

app = App()
failures: list[str] = []


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.wait_for_event("go", str) for _ in range(2)]


@app.orchestrator
async def fails_once(ctx: OrchestrationContext) -> str:
    if not failures:
        await ctx.wait_for_event("go")
        failures.append(ctx.instance_id)
        raise OSError("no")
    return "yes"


@app.orchestrator
async def teller(ctx: OrchestrationContext, to: list[str]) -> str:
    for instance_id in to:
        ctx.send_event(instance_id, "go", "told")
    return "told"


@app.orchestrator
async def caller(ctx: OrchestrationContext, child: str) -> object:
    return await ctx.call_sub_orchestrator(waiter, None, instance_id=child)


@app.orchestrator
async def patient(ctx: OrchestrationContext, child: str) -> object:
    retry = RetryPolicy(max_attempts=3, first_interval=1.0)
    return await ctx.call_sub_orchestrator(fails_once, None, instance_id=child, retry=retry)


@app.entity
class Counter:
    value: int = 0

    def add(self, value: int) -> int:
        self.value += value
        return self.value


def settings() -> Settings:
    return Settings(shard=ShardSettings(checkpoint_interval_s=0.2))


def in_hub(test: Callable[[Hub, HubClient], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        failures.clear()

        async def main() -> None:
            async with Hub(app, partitions=2, settings=settings()) as hub:
                await test(hub, HubClient(hub))
                assert not hub.broken

        run_virtual(main())

    run.__name__ = test.__name__
    return run


async def stored(hub: Hub) -> None:
    """Wait until everything is in rows, and the journal after them is empty but for the end."""
    await hub.quiet()
    await hub.until(
        lambda: all(
            not host.core.dirty and host.checkpoint_lsn == host.release.sealed
            for member in hub.members
            for host in member.shard.hosts.values()
        )
    )


def damage(hub: Hub, instance_id: str, state: bytes = b'{"instance_id": 7') -> InstanceRow:
    """Overwrite the stored state of an instance; return the row as it was."""
    for partition in hub.store._hub.partitions:
        row = partition.instances.get(instance_id)
        if row is not None:
            partition.instances[instance_id] = msgspec.structs.replace(row, state=state)
            return row
    raise AssertionError(f"{instance_id} is not stored")


def repair(hub: Hub, row: InstanceRow) -> None:
    for partition in hub.store._hub.partitions:
        if row.instance_id in partition.instances:
            partition.instances[row.instance_id] = row


async def reopen(hub: Hub) -> None:
    """Have everything read anew."""
    for member in list(hub.members):
        hub.crash(member)
    await hub.until(lambda: all(hub.host_of(number) for number in range(hub.partitions)))
    await hub.quiet()


async def asked(hub: Hub, question: Question) -> Raw:
    answered: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
    ask = Ask(1, Raw(msgspec.json.encode(question)))
    hub.members[0].shard.ask(ask, lambda answer: answered.set_result(answer.result))
    return await answered


async def code_of(call: Awaitable[object]) -> str:
    with pytest.raises(Refused) as caught:
        await call
    return caught.value.code


@in_hub
async def test_an_unreadable_instance_stops_nobody_else(hub: Hub, client: HubClient) -> None:
    await client.start("waiter", None, "bad!0")
    await client.start("waiter", None, "good!0")
    await stored(hub)
    damage(hub, "bad!0")
    await reopen(hub)
    epoch = hub.owners[0].shard.hosts[0].epoch
    for _ in range(3):
        assert await code_of(client.raise_event("bad!0", "go", "x")) == "InstanceQuarantined"
    await client.raise_event("good!0", "go", "a")
    await client.raise_event("good!0", "go", "b")
    assert await client.result("good!0") == ["a", "b"]
    assert hub.owners[0].shard.hosts[0].epoch == epoch
    assert hub.owners[0].shard.quarantined() == {0: ["bad!0"]}


@in_hub
async def test_one_that_needs_attention_at_recovery_is_left_out(
    hub: Hub, client: HubClient
) -> None:
    await client.start("waiter", None, "bad!0")
    await stored(hub)
    row = damage(hub, "bad!0")
    damaged = msgspec.structs.replace(row, active=True, next_due=1, state=b"\xff")
    hub.store._hub.partitions[0].instances["bad!0"] = damaged
    await reopen(hub)
    assert hub.owners[0].shard.quarantined() == {0: ["bad!0"]}


@in_hub
async def test_it_is_seen_everywhere_with_the_reason(hub: Hub, client: HubClient) -> None:
    await client.start("waiter", None, "bad!0", tags={"k": "v"})
    await stored(hub)
    damage(hub, "bad!0")
    await reopen(hub)
    found = await client.get("bad!0")
    assert found is not None
    assert (found.name, found.status, found.tags) == ("waiter", "Running", {"k": "v"})
    assert found.reason.startswith("quarantined: its stored state cannot be decoded:")
    page = msgspec.json.decode(await asked(hub, ListInstances(Filter())), type=SnapshotPage)
    assert page.instances == (found,)
    raw = await client.call("bad!0", r.Explain())
    explained = msgspec.json.decode(raw, type=r.Explanation)
    assert [(each.kind, each.reason) for each in explained.awaited] == [("repair", found.reason)]


@pytest.mark.parametrize(
    "request_",
    [
        r.Start("waiter", on_conflict="return"),
        r.Start("waiter", on_conflict="restart"),
        r.Raise("go"),
        r.Terminate(),
        r.Suspend(),
        r.Resume(),
        r.Rewind(),
        r.Restart(),
        r.Purge(),
        r.GetHistory(),
        r.Wait(),
    ],
    ids=lambda request: type(request).__name__,
)
def test_every_other_request_is_refused(request_: r.Request) -> None:
    @in_hub
    async def run(hub: Hub, client: HubClient) -> None:
        await client.start("waiter", None, "bad!0")
        await stored(hub)
        damage(hub, "bad!0", b'{"instance_id":"other"}')
        await reopen(hub)
        assert await code_of(client.call("bad!0", request_)) == "InstanceQuarantined"

    run()


@in_hub
async def test_a_row_with_the_state_of_another_instance_is_not_believed(
    hub: Hub, client: HubClient
) -> None:
    await client.start("waiter", None, "good!0")
    await client.start("waiter", None, "bad!0")
    await stored(hub)
    damage(hub, "bad!0", damage(hub, "good!0").state)
    await reopen(hub)
    found = await client.get("bad!0")
    assert found is not None
    assert found.reason == "quarantined: its stored state is the state of 'good!0'"


@in_hub
async def test_messages_to_it_hold_up_no_stream_and_reach_it_once_it_is_repaired(
    hub: Hub, client: HubClient
) -> None:
    await client.start("waiter", None, "bad!0")
    await client.start("waiter", None, "good!0")
    await stored(hub)
    row = damage(hub, "bad!0")
    await reopen(hub)
    await client.start("teller", ["bad!0", "good!0", "bad!0", "good!0"], "teller!1")
    assert await client.result("good!0") == ["told", "told"]
    found = await client.get("bad!0")
    assert found is not None
    assert found.reason.endswith("; 2 messages wait for it")
    await stored(hub)
    await reopen(hub)  # they are in the checkpoint
    repair(hub, row)
    await client.call("bad!0", r.Resume())
    assert await client.result("bad!0") == ["told", "told"]
    assert hub.owners[0].shard.hosts[0].core.state.aside == {}


@in_hub
async def test_what_was_put_aside_arrives_also_if_another_release_takes_over(
    hub: Hub, client: HubClient
) -> None:
    await client.start("caller", "kid!0", "parent!1")
    await client.start("patient", "once!0", "patient!1")
    await stored(hub)
    rows = [damage(hub, "parent!1"), damage(hub, "patient!1")]
    await reopen(hub)
    await client.raise_event("once!0", "go")
    await client.raise_event("kid!0", "go", "a")
    await client.raise_event("kid!0", "go", "b")
    assert await client.result("kid!0") == ["a", "b"]
    await stored(hub)
    aside = hub.owners[1].shard.hosts[1].core.state.aside
    assert {name: len(waiting) for name, waiting in aside.items()} == {
        "parent!1": 1,
        "patient!1": 1,
    }
    for row in rows:
        repair(hub, row)
    await reopen(hub)
    assert await client.result("parent!1") == ["a", "b"]
    assert await client.result("patient!1") == "yes"
    assert failures == ["once!0"]


@in_hub
async def test_it_is_removed_by_force_only(hub: Hub, client: HubClient) -> None:
    await client.start("waiter", None, "bad!0")
    await stored(hub)
    damage(hub, "bad!0")
    await reopen(hub)
    await client.start("caller", "bad!0", "parent!1")
    await hub.quiet()
    assert await code_of(client.purge("bad!0")) == "InstanceQuarantined"
    await client.call("bad!0", r.Purge(force=True))
    # What had been put aside finds no instance: the child is started.
    found = await client.get("bad!0")
    assert found is not None
    assert found.parent_instance_id == "parent!1"
    await reopen(hub)
    await client.raise_event("bad!0", "go", "a")
    await client.raise_event("bad!0", "go", "b")
    assert await client.result("parent!1") == ["a", "b"]
    await stored(hub)
    await reopen(hub)
    assert hub.owners[0].shard.quarantined() == {}


@in_hub
async def test_force_does_not_purge_what_is_well(hub: Hub, client: HubClient) -> None:
    await client.start("waiter", None, "good!0")
    await stored(hub)
    assert await code_of(client.call("good!0", r.Purge(force=True))) == "InstanceNotFinished"


@in_hub
async def test_an_entity_is_quarantined_alike(hub: Hub, client: HubClient) -> None:
    await client.call("@counter@a!0", r.SignalEntity("add", Raw(b"1")))
    await client.call("@counter@b!0", r.SignalEntity("add", Raw(b"1")))
    await stored(hub)
    damage(hub, "@counter@a!0")
    await reopen(hub)
    call = client.call("@counter@a!0", r.CallEntity("add", Raw(b"1")))
    assert await code_of(call) == "InstanceQuarantined"
    raw = await client.call("@counter@a!0", r.GetEntity())
    found = msgspec.json.decode(raw, type=r.EntitySnapshot)
    assert (found.name, found.key, found.exists) == ("counter", "a!0", True)
    assert found.reason.startswith("quarantined: ")
    page = msgspec.json.decode(await asked(hub, ListEntities(Filter())), type=EntityPage)
    assert [bool(each.reason) for each in page.entities] == [True, False]
    await client.call("@counter@b!0", r.CallEntity("add", Raw(b"1")))
    await client.call("@counter@a!0", r.Purge(force=True))
    assert bytes(await client.call("@counter@a!0", r.GetEntity())) == b"null"


@in_hub
async def test_a_journal_that_changes_it_stops_the_partition_and_says_why(
    hub: Hub, client: HubClient
) -> None:
    await client.start("waiter", None, "bad!0")
    await stored(hub)
    await client.raise_event("bad!0", "go", "x")
    damage(hub, "bad!0")
    hub.crash(hub.owners[0])
    await hub.until(lambda: hub.broken)
    assert "the journal changes instance 'bad!0' (Raised)" in hub.broken.pop()


@in_hub
async def test_a_history_that_cannot_be_read_parks_its_instance(
    hub: Hub, client: HubClient
) -> None:
    await client.start("waiter", None, "bad!0")
    await client.start("waiter", None, "good!0")
    await stored(hub)
    partition = hub.store._hub.partitions[0]
    partition.history["bad!0"] = dict.fromkeys(partition.history["bad!0"], b'[["What"]]')
    await reopen(hub)
    assert await code_of(client.history("bad!0")) == "InstanceQuarantined"
    await client.raise_event("bad!0", "go", "x")
    await client.raise_event("good!0", "go", "x")
    await hub.until(lambda: hub.owners[0].shard.hosts[0].core.instances["bad!0"].parked)
    found = await client.get("bad!0")
    assert found is not None
    assert found.reason.startswith("quarantined: its stored history cannot be decoded: ")
    await client.terminate("bad!0")
    assert await client.purge("bad!0") == 1


@in_hub
async def test_a_failed_instance_without_its_history_is_not_rewound(
    hub: Hub, client: HubClient
) -> None:
    await client.start("fails_once", None, "bad!0")
    await client.raise_event("bad!0", "go")
    assert (await client.wait("bad!0")).status is h.Status.FAILED
    await stored(hub)
    partition = hub.store._hub.partitions[0]
    partition.history["bad!0"] = dict.fromkeys(partition.history["bad!0"], b"{")
    await reopen(hub)
    assert await code_of(client.call("bad!0", r.Rewind())) == "InstanceQuarantined"
    found = await client.get("bad!0")
    assert found is not None
    assert found.status is h.Status.FAILED
