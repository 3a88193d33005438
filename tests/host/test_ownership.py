"""Losing a partition, handing it over, and serving with a lease only."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import HostSettings, ShardSettings
from shardrt.core import history as h, requests as r
from shardrt.core.codec import encode_record
from shardrt.core.entries import Taken
from shardrt.links.messages import Forward
from shardrt.store.base import Append
from shardrt.testing.client import HubClient
from shardrt.testing.hub import LEASE_S, OWNER, Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.witness import assert_history, assert_recoverable

if TYPE_CHECKING:
    from shardrt.core.effects import RunActivity
    from shardrt.links.messages import Answer
    from shardrt.store.base import PartitionHead

app = App()
runs: list[float] = []
askers = itertools.count()


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    runs.clear()


@app.activity
async def nap(seconds: float) -> float:
    runs.append(seconds)
    await pass_time(seconds)
    return seconds


@app.orchestrator
async def twice(ctx: OrchestrationContext, seconds: float) -> str:
    ctx.set_custom_status("first")
    await ctx.call_activity(nap, seconds)
    ctx.set_custom_status("second")
    await ctx.call_activity(nap, seconds + 1)
    return "done"


@app.orchestrator
async def sleeper(ctx: OrchestrationContext, seconds: float) -> float:
    return await ctx.call_activity(nap, seconds)


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


@app.orchestrator
async def caller(ctx: OrchestrationContext, instance_id: str) -> None:
    ctx.send_event(instance_id, "go", "on")


@app.orchestrator
async def restless(ctx: OrchestrationContext, count: int) -> None:
    ctx.continue_as_new(count + 1)


def settings(drain_s: float = 10.0) -> Settings:
    return Settings(
        host=HostSettings(drain_s=drain_s), shard=ShardSettings(checkpoint_interval_s=0.2)
    )


def ask(hub: Hub, partition: int, instance_id: str, request: r.Request) -> list[Answer]:
    """Ask once, straight at the shard that owns it; return the list that the answer comes to."""
    answers: list[Answer] = []
    origin = r.Origin(f"asker {next(askers)}", 1, 1)
    call = Forward(1, partition, origin, instance_id, request)
    hub.owners[partition].shard.submit(call, answers.append)
    return answers


def code_of(answers: list[Answer]) -> str:
    (answer,) = answers
    return "" if answer.refusal is None else answer.refusal.code


def test_a_running_activity_ends_before_its_partition_is_handed_over():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("sleeper", 3.0, "one")
            await pass_time(1)
            old = hub.owners[0]
            waiting = ask(hub, 0, "one", r.Wait())
            hub.revoke(0)
            await pass_time(0.1)
            assert waiting == []
            assert 0 in old.shard.hosts
            assert await client.result("one") == 3.0
            assert code_of(waiting) == ""
            await hub.until(lambda: 0 not in old.shard.hosts, within_s=1)
            assert hub.owners[0] is not old
            assert runs == [3.0]
            assert 0 not in old.shard.hosts
            await hub.quiet()
            await assert_recoverable(hub)

    run_virtual(main())


def test_a_partition_serves_while_the_activities_of_others_hold_up_its_release():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings(drain_s=30.0)) as hub:
            client = HubClient(hub)
            await client.start("sleeper", 20.0, "long")
            await client.start("twice", 2.0, "short")
            await client.start("waiter", None, "event")
            old = hub.owners[0]
            hub.revoke(0)
            started = ask(hub, 0, "new", r.Start("waiter"))
            raised = ask(hub, 0, "event", r.Raise("go", Raw(b'"on"')))
            missing = ask(hub, 0, "short", r.Wait())
            await pass_time(10)
            # Intake, turns and reads go on; new attempts are for the next owner.
            assert (code_of(started), code_of(raised)) == ("", "")
            assert await client.result("event") == "on"
            short = await client.get("short")
            assert short is not None
            assert short.custom_status == Raw(b'"second"')
            assert runs == [20.0, 2.0]
            assert hub.owners[0] is old
            await hub.until(lambda: hub.owners[0] is not old, within_s=11)
            assert code_of(missing) == "PartitionUnavailable"
            assert await client.result("short") == "done"
            assert runs == [20.0, 2.0, 3.0]

    run_virtual(main())


def test_partitions_are_frozen_one_after_the_other():
    async def main() -> None:
        slow = (0.02, 0.03)
        async with Hub(app, partitions=4, shards=1, settings=settings(), latency_s=slow) as hub:
            hub.moves = False
            client = HubClient(hub)
            await hub.quiet()
            (member,) = hub.members
            hub.calls.held.add("checkpoint")
            for partition in range(4):
                await client.start("waiter", None, f"one!{partition}")
                hub.revoke(partition)
            await pass_time(1)
            for partition in range(4):
                await client.start("waiter", None, f"two!{partition}")
            hub.calls.held.clear()
            most = 0

            def all_gone() -> bool:
                nonlocal most
                most = max(most, sum(host.frozen for host in member.shard.hosts.values()))
                return not member.shard.hosts

            await hub.until(all_gone)
            assert most == 1

    run_virtual(main())


def test_an_activity_that_outlasts_the_grace_runs_again_elsewhere():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings(drain_s=1.0)) as hub:
            client = HubClient(hub)
            await client.start("sleeper", 5.0, "one")
            await pass_time(1)
            hub.revoke(0)
            assert await client.result("one") == 5.0
            assert runs == [5.0, 5.0]
            events = await assert_history(client, "one")
            assert sum(isinstance(each, h.TaskCompleted) for each in events) == 1

    run_virtual(main())


def test_messages_are_sent_again_when_there_is_a_new_way(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with Hub(app, partitions=2, settings=settings()) as hub:
            client = HubClient(hub)
            for waiting in ("one!1", "two!1", "three!1"):
                await client.start("waiter", None, waiting)
            await client.start("caller", "one!1", "a!0")
            assert await client.result("one!1") == "on"
            await hub.quiet()
            source, destination = hub.owners[0], hub.owners[1]

            async def lose(caller: str, waiting: str) -> None:
                with monkeypatch.context() as cut:
                    cut.setattr(source, "send", lambda *_: None)
                    await client.start("caller", waiting, caller)
                    await pass_time(20)  # by now it is sent again seldom

            def has_ended(instance_id: str) -> bool:
                return f"'{instance_id}'" not in hub.waiting

            await lose("b!0", "two!1")
            assert not has_ended("two!1")
            source.shard.reached({1})
            await hub.until(lambda: has_ended("two!1"), within_s=0.1)
            await lose("c!0", "three!1")
            # Its owner has come to be reached, and asks for what it missed.
            destination.shard.reached({1})
            await hub.until(lambda: has_ended("three!1"), within_s=0.1)

    run_virtual(main())


def test_a_partition_is_released_with_everything_in_its_checkpoint():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings()) as hub:
            hub.moves = False
            client = HubClient(hub)
            await client.start("waiter", None, "one")
            hub.revoke(0)
            await hub.until(lambda: not hub.owners[0].shard.hosts)
            (row,) = (await hub.store.view()).partitions
            assert row.checkpoint_lsn == row.commit_lsn > 0

    run_virtual(main())


def test_a_partition_that_never_rests_is_released_all_the_same():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("restless", 0, "one")
            old = hub.owners[0]
            await pass_time(0.5)
            hub.revoke(0)
            await hub.until(lambda: hub.owners[0] is not old, within_s=2)
            await client.terminate("one")

    run_virtual(main())


def test_a_release_ends_when_the_partition_is_lost_meanwhile():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("sleeper", 3.0, "one")
            old = hub.owners[0]
            hub.revoke(0)
            await hub.depose(0)
            await hub.until(lambda: not old.shard._revoking, within_s=5)
            assert await client.result("one") == 3.0
            assert not old.shard.hosts

    run_virtual(main())


def test_a_release_ends_though_some_of_it_was_never_committed():
    async def main() -> None:
        async with Hub(app, partitions=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("waiter", None, "one")
            old = hub.owners[0]
            hub.calls.held.add("append")
            answers = [ask(hub, 0, "one", r.Raise("other"))]
            await pass_time(0.1)
            answers.append(ask(hub, 0, "one", r.Raise("other")))
            hub.revoke(0)
            await pass_time(0.1)
            await hub.depose(0)
            hub.calls.held.clear()
            await hub.until(lambda: not old.shard._revoking, within_s=5)
            assert [code_of(each) for each in answers] == ["PartitionUnavailable"] * 2

    run_virtual(main())


def test_a_partition_that_comes_back_during_its_release_can_be_released_again():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=settings(drain_s=30.0)) as hub:
            client = HubClient(hub)
            await client.start("sleeper", 20.0, "one")
            member = hub.owners[0]
            hub.revoke(0)
            await pass_time(1)
            await hub.assign(0, member)
            await pass_time(1)
            hub.moves = False
            hub.revoke(0)
            await hub.until(lambda: not member.shard.hosts, within_s=25)

    run_virtual(main())


def test_drain_hands_everything_back():
    async def main() -> None:
        async with Hub(app, partitions=3, shards=1, settings=settings()) as hub:
            hub.moves = False
            client = HubClient(hub)
            await client.start("sleeper", 1.0, "one")
            await hub.members[0].shard.drain(5.0)
            assert not hub.members[0].shard.hosts
            assert sum("released" in line for line in hub.trace) == 3

    run_virtual(main())


def test_a_fenced_partition_is_dropped_and_others_go_on():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1, settings=settings()) as hub:
            await hub.quiet()
            (member,) = hub.members
            client = HubClient(hub)
            hub.moves = False
            epoch = await hub.store.claim(0, 1, "host/1")
            answers = ask(hub, 0, "one!0", r.Start("waiter"))
            await client.start("waiter", None, "two!1")
            await hub.until(lambda: answers)
            assert code_of(answers) == "PartitionUnavailable"
            assert set(member.shard.hosts) == {1}
            assert hub.calls.fenced == 1
            assert epoch == 2
            assert await hub.store.position(0) == (2, 1)
            await client.raise_event("two!1", "go", "on")
            assert await client.result("two!1") == "on"

    run_virtual(main())


def test_without_a_lease_nothing_is_committed_or_told():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("waiter", None, "one")
            await hub.quiet()
            hub.members[0].has_lease = False
            await pass_time(LEASE_S)
            appends = hub.calls.names.count("append")
            reads = [
                ask(hub, 0, "one", r.Get()),
                ask(hub, 0, "one", r.GetHistory()),
                ask(hub, 0, "nobody", r.Get()),
                ask(hub, 0, "nobody", r.Terminate()),
                ask(hub, 0, "one", r.Start("waiter")),
            ]
            started = ask(hub, 0, "two", r.Start("waiter"))
            await pass_time(5)
            assert [code_of(each) for each in reads if each] == []
            assert started == []
            assert hub.calls.names.count("append") == appends
            hub.members[0].has_lease = True
            hub.members[0].renew()
            await pass_time(1)
            assert [code_of(each) for each in reads] == [
                "",
                "",
                "",
                "InstanceNotFound",
                "InstanceExists",
            ]
            assert code_of(started) == ""

    run_virtual(main())


def test_what_became_durable_as_the_lease_ended_is_not_told_any_more():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("waiter", None, "one")
            await hub.quiet()
            hub.members[0].has_lease = False
            await pass_time(LEASE_S / 2)
            hub.calls.held_answers.add("append")
            start = r.Start("waiter", fresh=True)
            answers = [ask(hub, 0, "two", start), ask(hub, 0, "two", start)]
            await pass_time(0.1)
            late = ask(hub, 0, "two", r.Get())
            await pass_time(LEASE_S)
            assert [*answers, late] == [[], [], []]
            hub.calls.held_answers.clear()
            await pass_time(1)
            # Neither the yes nor the no: somebody else may own it by now.
            assert [code_of(each) for each in answers] == ["PartitionUnavailable"] * 2
            assert late == []
            hub.members[0].shard.discard(0)
            assert code_of(late) == "PartitionUnavailable"

    run_virtual(main())


def test_a_history_being_read_when_its_partition_goes_is_refused():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=settings()) as hub:
            client = HubClient(hub)
            await client.start("waiter", None, "one")
            await hub.quiet()
            await pass_time(1)
            hub.calls.held.add("history")
            answers = ask(hub, 0, "one", r.GetHistory())
            await pass_time(0.1)
            assert answers == []
            shard = hub.owners[0].shard
            shard.discard(0)
            assert code_of(answers) == "PartitionUnavailable"
            hub.calls.held.clear()
            await pass_time(0.1)
            assert len(answers) == 1
            assert shard.requests_in_flight == 0

    run_virtual(main())


def test_no_activity_starts_once_its_partition_is_leaving():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=settings()) as hub:
            hub.moves = False
            client = HubClient(hub)
            await hub.quiet()
            started: list[RunActivity] = []
            pool = hub.owners[0].shard.pool
            pool.start = lambda asker, run: started.append(run)  # type: ignore[method-assign]
            await client.start("waiter", None, "one")
            hub.revoke(0)
            await hub.until(lambda: not hub.owners[0].shard.hosts)
            assert started == []

    run_virtual(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_recovery_overtaken_by_the_next_owner_is_no_damage_and_no_bug(fails):
    async def main() -> None:
        async with Hub(app, partitions=1, shards=2) as hub:
            await hub.until(lambda: hub.is_quiet)
            hub.moves = False
            slow = hub.members[1].store
            read = slow.head

            async def head(partition: int, epoch: int) -> PartitionHead:
                found: PartitionHead = await read(partition, epoch)
                if found.epoch == epoch == 2:
                    newest = await hub.store.claim(partition, epoch, OWNER)
                    assert newest is not None
                    assert not fails, "rows of one moment, journal of another"
                    record = encode_record([Taken(0, newest)])
                    await hub.store.append(
                        [Append(partition, newest, found.commit_lsn + 1, record)]
                    )
                return found

            slow.head = head  # type: ignore[attr-defined]
            await hub.assign(0, hub.members[1])
            lost = "1 lost 0 under 2: "
            await hub.until(lambda: any(line.endswith(lost) for line in hub.trace))
            assert hub.broken == []

    run_virtual(main())
