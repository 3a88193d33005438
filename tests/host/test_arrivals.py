"""Starts wait while enough is in motion; nobody is forgotten, overtaken by its like, or lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt import App, OrchestrationContext
from shardrt.config import Settings, ShardSettings
from shardrt.core import requests as r
from shardrt.host.arrivals import STALL_S, Motion
from shardrt.host.committer import MANY
from shardrt.host.partition_host import PartitionHost
from shardrt.host.shard import TICK_S
from shardrt.links.messages import Forward
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.test_ownership import ask, code_of

if TYPE_CHECKING:
    from shardrt.links.messages import Answer

app = App()
began: list[str] = []
ended: list[str] = []


@app.activity
async def nothing() -> None:
    pass


@app.activity
async def nap() -> None:
    began.append("nap")
    await pass_time(30)


@app.orchestrator
async def quick(ctx: OrchestrationContext, ballast: str = "") -> None:
    began.append(ctx.instance_id)
    await ctx.call_activity(nothing)
    ended.append(ctx.instance_id)


@app.orchestrator
async def for_event(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_event("go", str)


@app.orchestrator
async def for_timer(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(seconds=30))


@app.orchestrator
async def for_slow_activity(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(nap)


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    began.clear()
    ended.clear()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    bound(monkeypatch, motion=3, together=3)


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> None:
    bound(monkeypatch, motion=1, together=1)


def bound(monkeypatch: pytest.MonkeyPatch, *, motion: int, together: int) -> None:
    monkeypatch.setattr("shardrt.host.arrivals.MOTION_MIN", motion)
    monkeypatch.setattr("shardrt.host.arrivals.TOGETHER", together)
    monkeypatch.setattr("shardrt.host.arrivals.TURN_COST_S", 1.0)  # every commit is quick


def start(hub: Hub, partition: int, instance_id: str, name: str = "quick") -> list[Answer]:
    return ask(hub, partition, instance_id, r.Start(name, fresh=True))


def instances(hub: Hub, partition: int = 0) -> set[str]:
    host = hub.host_of(partition)
    assert host is not None
    return set(host.core.instances)


def in_flight(hub: Hub) -> tuple[int, int]:
    shard = hub.members[0].shard
    return shard.requests_in_flight, shard.bytes_in_flight


async def turns_of_the_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def hold_commits(hub: Hub) -> None:
    await hub.quiet()
    hub.calls.held.add("append")


@pytest.mark.usefixtures("few")
def test_of_many_starts_only_as_many_get_in_as_may_be_in_motion():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            ids = [f"i{n}" for n in range(10)]
            answers = [start(hub, 0, each) for each in ids]
            await pass_time(0.5)
            assert instances(hub) == {"i0", "i1", "i2"}
            assert answers == [[]] * 10
            hub.calls.held.clear()
            await hub.until(lambda: len(ended) == 10, within_s=1)
            await hub.quiet()
            assert began == ids
            assert ended == ids
            assert [code_of(each) for each in answers] == [""] * 10

    run_virtual(main())


def test_those_of_a_partition_get_in_together(monkeypatch: pytest.MonkeyPatch):
    bound(monkeypatch, motion=1, together=3)

    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hold_commits(hub)
            for n in range(5):
                start(hub, 0, f"i{n}")
                start(hub, 1, f"j{n}")
            await pass_time(0.5)
            assert began == ["i0", "i1", "i2"]
            hub.calls.held.clear()
            await hub.until(lambda: len(ended) == 10, within_s=1)
            # The others of the first partition come after the second.
            assert began[3:] == ["j0", "j1", "j2", "i3", "i4", "j3", "j4"]

    run_virtual(main())


@pytest.mark.parametrize(("count", "is_paced"), [(MANY - 1, False), (MANY, True)])
def test_commits_of_many_instances_are_paced(
    monkeypatch: pytest.MonkeyPatch, count: int, is_paced: bool
):
    monkeypatch.setattr("shardrt.host.committer.PACE_S", 10.0)

    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hub.quiet()
            for n in range(count):
                start(hub, 0, f"i{n}")
            waits = [ask(hub, 0, f"i{n}", r.Wait()) for n in range(count)]
            await pass_time(9.0)
            assert len(ended) == count
            assert all(waits) is not is_paced
            await pass_time(2.0)
            assert all(waits)

    run_virtual(main())


@pytest.mark.parametrize(("enough", "together"), [(64, True), (2, False)])
def test_what_a_commit_released_is_in_the_next_one(
    monkeypatch: pytest.MonkeyPatch, enough: int, together: bool
):
    monkeypatch.setattr("shardrt.host.rounds.ENOUGH", enough)

    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            host = hub.host_of(0)
            assert host is not None
            before = host.release.sealed
            start(hub, 0, "a")
            await pass_time(0.1)
            start(hub, 0, "b")  # its turn is over when that of "a" becomes durable
            await pass_time(0.1)
            assert began == ["a", "b"]
            hub.calls.held.clear()
            await hub.quiet()
            assert ended == ["a", "b"]
            # One each for the start of "a", its end with the start of "b", and the end of "b".
            assert host.release.sealed - before == (3 if together else 4)

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_slow_commits_make_room_for_as_many_as_they_take_to_fill(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shardrt.host.arrivals.TURN_COST_S", 0.1)

    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, latency_s=(0.25, 0.25)) as hub:
            await hold_commits(hub)
            for n in range(10):
                start(hub, 0, f"i{n}")
            await pass_time(0.5)
            assert began == ["i0", "i1", "i2", "i3", "i4"]

    run_virtual(main())


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["for_event", "for_timer", "for_slow_activity"])
def test_instances_that_wait_hold_up_nobody(name: str):
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hub.quiet()
            idle = [start(hub, 0, f"idle{n}", name) for n in range(7)]
            await pass_time(1)
            assert [code_of(each) for each in idle] == [""] * 7
            assert hub.waiting.count(name) == 7
            hub.calls.held.add("append")
            for n in range(4):
                start(hub, 0, f"i{n}")
            await turns_of_the_loop()
            assert began[-3:] == ["i0", "i1", "i2"]

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_activities_hold_up_others_until_they_begin():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hub.quiet()
            others: list[list[Answer]] = []
            call = Forward(1, 0, r.Origin("a", 1, 1), "i", r.Start("for_slow_activity", fresh=True))
            # The round of what is started with the answer comes before the activity begins.
            hub.members[0].shard.submit(call, lambda _: others.append(start(hub, 0, "next")))
            await pass_time(0.1)
            assert began == ["nap", "next"]

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_who_has_waited_for_long_gets_in_whatever_there_is_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shardrt.host.arrivals.WAIT_S_MAX", 2.0)
    monkeypatch.setattr("shardrt.host.rounds.STALL_S", 1000.0)

    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            start(hub, 0, "first")
            start(hub, 0, "waits")
            await pass_time(1.9)
            start(hub, 0, "later")
            await turns_of_the_loop()
            assert began == ["first"]
            await pass_time(2 * TICK_S)
            assert began == ["first", "waits", "later"]  # in their order
            start(hub, 0, "last")
            await turns_of_the_loop()
            hub.calls.held.clear()
            await hub.until(lambda: len(ended) == 4, within_s=1)
            assert began == ["first", "waits", "later", "last"]

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_while_the_store_takes_nothing_all_may_begin():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            for n in range(3):
                start(hub, 0, f"i{n}")
            await pass_time(STALL_S * 0.9)
            assert began == ["i0"]
            await pass_time(STALL_S)
            start(hub, 0, "i3")
            await turns_of_the_loop()
            assert began == ["i0", "i1", "i2", "i3"]

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_what_concerns_an_instance_does_not_overtake_its_start():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            start(hub, 0, "first")
            start(hub, 0, "second", "for_event")
            event = ask(hub, 0, "second", r.Raise("go", Raw(b'"now"')))
            start(hub, 0, "third")
            await turns_of_the_loop()
            assert instances(hub) == {"first", "second"}
            hub.calls.held.clear()
            await hub.until(lambda: event)
            assert code_of(event) == ""
            await hub.quiet()
            assert ended == ["first", "third"]
            await hold_commits(hub)
            start(hub, 0, "in motion")
            start(hub, 0, "waits")
            ask(hub, 0, "second", r.Wait())  # is in already, and brings nobody in
            await turns_of_the_loop()
            assert "waits" not in instances(hub)

    run_virtual(main())


def test_turns_that_are_left_come_before_what_has_not_begun(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hub.quiet()
            for n in range(4):
                start(hub, 0, f"i{n}")
            monkeypatch.setattr("shardrt.host.rounds.TURN_S", 0.0)  # one turn in each round
            await asyncio.sleep(0)
            start(hub, 0, "last")
            await asyncio.sleep(0)
            assert instances(hub) == {"i0", "i1", "i2", "i3"}
            await hub.quiet()
            assert "last" in ended

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_a_partition_that_takes_no_more_refuses_starts_at_once():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            host = hub.host_of(0)
            assert host is not None
            start(hub, 0, "in motion")
            await turns_of_the_loop()
            host.freeze()
            assert code_of(start(hub, 0, "late")) == "PartitionUnavailable"

    run_virtual(main())


@pytest.mark.usefixtures("few")
def test_a_start_for_a_partition_of_another_shard_is_refused_though_nothing_has_room():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=2) as hub:
            await hold_commits(hub)
            waiting = [start(hub, 0, f"i{n}") for n in range(4)]
            await pass_time(0.1)
            assert len(instances(hub)) == 3
            answers: list[Answer] = []
            call = Forward(1, 1, r.Origin("a", 1, 1), "stray", r.Start("quick", fresh=True))
            hub.owners[0].shard.submit(call, answers.append)
            assert code_of(answers) == "PartitionUnavailable"
            assert waiting == [[]] * 4

    run_virtual(main())


@pytest.mark.usefixtures("few")
def test_starts_that_wait_for_a_partition_that_goes_are_refused_and_those_of_others_get_in():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hold_commits(hub)
            lost = [start(hub, 0, f"i{n}") for n in range(6)]
            others = [start(hub, 1, f"j{n}") for n in range(6)]
            await pass_time(0.1)
            assert (instances(hub, 0), instances(hub, 1)) == ({"i0", "i1", "i2"}, set())
            hub.members[0].shard.discard(0)
            assert [code_of(each) for each in lost] == ["PartitionUnavailable"] * 6
            assert others == [[]] * 6
            hub.calls.held.clear()
            await hub.until(lambda: len(ended) == 6, within_s=1)
            assert [code_of(each) for each in others] == [""] * 6
            assert in_flight(hub) == (0, 0)

    run_virtual(main())


@pytest.mark.usefixtures("few")
def test_turns_of_a_partition_that_goes_before_their_commit_hold_up_nobody():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hub.quiet()
            commits = hub.calls.names.count("append")
            lost = [start(hub, 0, f"i{n}") for n in range(6)]
            others = [start(hub, 1, f"j{n}") for n in range(3)]
            await asyncio.sleep(0)  # one round
            assert (began, hub.calls.names.count("append")) == (["i0", "i1", "i2"], commits)
            hub.members[0].shard.discard(0)
            assert [code_of(each) for each in lost] == ["PartitionUnavailable"] * 6
            await hub.until(lambda: len(ended) == 3, within_s=0.5)
            assert [code_of(each) for each in others] == [""] * 3

    run_virtual(main())


@pytest.mark.usefixtures("few")
def test_turns_of_a_partition_that_breaks_in_them_hold_up_nobody(monkeypatch: pytest.MonkeyPatch):
    run_turns = PartitionHost.run_turns

    def break_after(host: PartitionHost, deadline_s: float) -> bool:
        left = run_turns(host, deadline_s)
        if "i2" in host.core.instances:
            raise ZeroDivisionError
        return left

    monkeypatch.setattr(PartitionHost, "run_turns", break_after)

    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hub.quiet()
            lost = [start(hub, 0, f"i{n}") for n in range(6)]
            others = [start(hub, 1, f"j{n}") for n in range(3)]
            await hub.until(lambda: len(ended) == 3, within_s=0.5)
            assert [code_of(each) for each in lost] == ["PartitionUnavailable"] * 6
            assert [code_of(each) for each in others] == [""] * 3
            assert hub.broken == ["ZeroDivisionError: "]

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_starts_that_wait_are_in_flight_with_their_bytes():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hold_commits(hub)
            for n, size in enumerate([100, 200, 300]):
                ballast = Raw(b'"' + b"x" * (size - 2) + b'"')
                ask(hub, 0, f"i{n}", r.Start("quick", ballast, fresh=True))
            assert (began, in_flight(hub)) == ([], (3, 600))
            await pass_time(0.1)
            assert (began, in_flight(hub)) == (["i0"], (3, 600))
            hub.calls.held.clear()
            await hub.until(lambda: len(ended) == 3, within_s=1)
            assert in_flight(hub) == (0, 0)

    run_virtual(main())


@pytest.mark.usefixtures("one")
def test_starts_are_refused_while_too_many_wait_for_room():
    async def main() -> None:
        settings = Settings(shard=ShardSettings(starts_waiting_max=3))
        async with Hub(app, partitions=1, shards=1, settings=settings) as hub:
            await hold_commits(hub)
            answers = [start(hub, 0, f"i{n}") for n in range(3)]
            await turns_of_the_loop()
            answers.append(start(hub, 0, "i3"))
            assert began == ["i0"]  # it waits no more
            refusal = r.Refusal("Overloaded", "3 instances wait for their first turn", 0.5)
            assert [each.refusal for each in start(hub, 0, "one too many")] == [refusal]
            hub.calls.held.clear()
            await hub.until(lambda: len(ended) == 4, within_s=1)
            answers.append(start(hub, 0, "again"))
            await pass_time(0.1)
            assert [code_of(each) for each in answers] == [""] * 5

    run_virtual(main())


def test_the_limit_follows_the_shortest_commit_of_late(monkeypatch: pytest.MonkeyPatch):
    bound(monkeypatch, motion=10, together=1)
    monkeypatch.setattr("shardrt.host.arrivals.TURN_COST_S", 0.25)
    monkeypatch.setattr("shardrt.host.arrivals.FORGET", 1.5)
    motion = Motion()
    limits = [motion.limit]
    for commit_s in [8.0, 100.0, 100.0, 20.0, 4.0, 2.0, 2.5]:
        motion.saved(commit_s)
        limits.append(motion.limit)
    assert limits == [10, 32, 48, 72, 80, 16, 10, 10]
