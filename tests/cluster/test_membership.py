"""Leases, claims and hand-overs among hosts of one hub, in virtual time."""

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shardrt.cluster.lease import LeaseState
from shardrt.cluster.membership import SUCCESSION_S_MAX
from shardrt.errors import ConfigInvalid
from tests.cluster.hub import TTL_S, FakeHub, a_hub
from tests.cluster.virtual_time import pass_time, run_virtual

ALL = set(range(8))


def virtual(test: Callable[[FakeHub], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        async with a_hub() as hub:
            await test(hub)

    def run() -> None:
        run_virtual(main())

    run.__name__ = test.__name__
    return run


@virtual
async def test_the_first_host_takes_everything_at_once(hub: FakeHub) -> None:
    a = hub.host("a")
    async with asyncio.timeout(1):
        await a.member.wait_settled()
    assert a.owned == ALL
    assert await hub.epochs() == [1] * 8
    assert a.member.serving() == dict.fromkeys(ALL, 1)
    # The view that it decided by is of before.
    assert {row["unserved_s"] for row in a.member.describe()["partitions"]} == {None}


@virtual
async def test_an_idle_host_asks_the_store_three_times_per_ttl(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.store.calls.clear()
    await pass_time(101)
    assert a.store.calls == {"renew": 30}


@virtual
async def test_a_joining_host_is_handed_its_share(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    b = hub.host("b")
    await hub.until(lambda: len(b.owned) == 4, within_s=2 * TTL_S)
    assert a.owned | b.owned == ALL
    assert await hub.owners() == ["a" if p in a.owned else "b" for p in range(8)]
    assert sum(await hub.epochs()) == 8 + 4  # nothing moved twice


@virtual
async def test_hosts_own_in_proportion_to_their_shards(hub: FakeHub) -> None:
    a, b = hub.host("a", shards=1), hub.host("b", shards=3)
    await hub.until(lambda: (len(a.owned), len(b.owned)) == (2, 6), within_s=2 * TTL_S)


@virtual
async def test_the_partitions_of_a_dead_host_are_served_elsewhere_within_the_ttl(
    hub: FakeHub,
) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    await a.crash()
    took_s = await hub.until(lambda: b.owned == ALL, within_s=2 * TTL_S)
    assert took_s <= TTL_S + 1


@virtual
async def test_a_host_that_leaves_hands_over_and_is_gone(hub: FakeHub) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    await a.member.leave(grace_s=5)
    await a.task
    assert a.owned == set()
    assert [host.host_id for host in (await hub.store.view()).hosts] == ["b"]
    assert a.member.state is LeaseState.LEFT
    # It stays until it knows who leads on.
    assert b.owned == ALL


@virtual
async def test_who_is_to_take_over_is_told_at_once(hub: FakeHub) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    nudged: set[str] = set()

    def nudge(target: str) -> None:
        nudged.add(target)
        b.member.look()

    a.member.nudge = nudge
    began_s = asyncio.get_running_loop().time()
    await a.member.leave(grace_s=5)
    assert asyncio.get_running_loop().time() - began_s < TTL_S / 10
    assert b.owned == ALL
    assert nudged == {f"http://b#{b.member.owner}"}


@virtual
async def test_a_host_does_not_wait_for_ever_for_those_who_should_take_over(hub: FakeHub) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    assert a.member.has_heirs
    b.store.hangs = True
    began_s = asyncio.get_running_loop().time()
    await a.member.leave(grace_s=5)
    took_s = asyncio.get_running_loop().time() - began_s
    assert SUCCESSION_S_MAX <= took_s < SUCCESSION_S_MAX + 1


@virtual
async def test_a_host_in_a_hurry_does_not_wait_for_others_at_all(hub: FakeHub) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    b.store.hangs = True
    leaving = asyncio.ensure_future(a.member.leave(grace_s=5))
    await pass_time(1)
    assert a.owned == set()
    assert not leaving.done()
    a.member.leave_now()
    await pass_time(0.1)
    assert leaving.done()


@virtual
async def test_what_is_served_until_it_is_given_up_is_routed_to(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.shards.drains = False
    leaving = asyncio.ensure_future(a.member.leave(grace_s=5))
    await pass_time(1)
    assert set(a.member.serving()) == ALL
    for partition, epoch in list(a.shards.assigned.items()):
        a.member.released(partition, epoch)
    assert a.member.serving() == {}
    assert not a.member.has_heirs
    await leaving


@virtual
async def test_a_host_that_cannot_drain_leaves_nevertheless(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.shards.drains = False
    await a.member.leave(grace_s=5)
    await a.task
    assert await hub.owners() == [None] * 8
    assert a.owned == set()


@virtual
async def test_what_a_shard_has_not_forgotten_is_left_to_the_end_of_the_lease(
    hub: FakeHub,
) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    a.shards.drains = a.shards.forgets = False
    await a.member.leave(grace_s=1)
    await a.task
    assert len(a.owned) == 4
    await hub.until(lambda: bool(b.owned & a.owned), within_s=2 * TTL_S)
    assert not a.may_serve


@virtual
async def test_what_is_taken_from_a_shard_is_released_once_it_has_forgotten_it(
    hub: FakeHub,
) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    a.shards.drains = a.shards.forgets = False
    hub.host("c")
    revoke_s_max = 60
    await pass_time(2 * revoke_s_max)
    revoked = {partition for what, partition in a.shards.log if what == "discard"}
    assert revoked
    owners = await hub.owners()
    assert {owners[partition] for partition in revoked} == {"a"}
    a.member.shard_died(revoked)
    await pass_time(TTL_S)
    owners = await hub.owners()
    assert "a" not in {owners[partition] for partition in revoked}


@virtual
async def test_a_host_stops_before_others_can_take_its_partitions(hub: FakeHub) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    a.store.away = True
    while b.owned != ALL:
        assert not (a.may_serve and b.owned & a.owned)
        await pass_time(0.01)
    assert a.member.state is LeaseState.EXPIRED
    assert len(a.owned) == 4  # its memory is kept, until it knows


@virtual
async def test_a_zombie_learns_that_its_partitions_are_gone_and_joins_again(hub: FakeHub) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    lost = a.owned
    a.store.away = True
    await hub.until(lambda: b.owned == ALL, within_s=2 * TTL_S)
    a.store.away = False
    a.shards.log.clear()
    await hub.until(lambda: ("discard", min(lost)) in a.shards.log, within_s=TTL_S)
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    assert a.owned | b.owned == ALL


@virtual
async def test_a_lease_renewed_too_late_does_not_cover_what_others_have_taken(
    hub: FakeHub,
) -> None:
    a, b = hub.host("a"), hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=2 * TTL_S)
    a.store.away = True
    await hub.until(lambda: b.owned == ALL, within_s=2 * TTL_S)
    covered: list[set[int]] = []
    lease = a.shards.lease

    def watch(until_s: float, clock_offset: int) -> None:
        covered.append(a.owned)
        lease(until_s, clock_offset)

    a.shards.lease = watch  # type: ignore[method-assign]
    a.store.away = False
    await hub.until(lambda: bool(covered), within_s=TTL_S)
    assert covered[0] == set()


@virtual
async def test_with_the_store_away_for_a_while_work_goes_on_under_the_old_epochs(
    hub: FakeHub,
) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.store.away = True
    await hub.until(lambda: not a.may_serve, within_s=2 * TTL_S)
    await pass_time(5 * TTL_S)
    a.store.away = False
    await hub.until(lambda: a.may_serve, within_s=TTL_S)
    assert a.member.state is LeaseState.HELD
    assert [what for what, _ in a.shards.log] == ["assign"] * 8
    assert await hub.epochs() == [1] * 8


@virtual
async def test_a_store_that_does_not_answer_is_not_waited_for(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.store.hangs = True
    await pass_time(1.5 * TTL_S)
    assert a.member.state is LeaseState.EXPIRED
    a.store.hangs = False
    await hub.until(lambda: a.may_serve, within_s=TTL_S)


@virtual
async def test_an_outage_does_not_hammer_the_store(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.store.away = True
    a.store.calls.clear()
    await pass_time(10 * TTL_S)
    assert a.store.calls.total() < 110  # a query per second


@virtual
async def test_a_replaced_host_drops_everything_and_is_refused_in_the_end(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.store.away = True
    await pass_time(2 * TTL_S)
    successor = hub.host("a")
    await hub.until(lambda: successor.owned == ALL, within_s=TTL_S)
    a.store.away = False
    await hub.until(lambda: a.owned == set(), within_s=TTL_S)
    async with asyncio.timeout(5 * TTL_S):
        with pytest.raises(ConfigInvalid, match="another running host has the id 'a'"):
            await a.task
    assert successor.owned == ALL


@virtual
async def test_a_restarted_host_waits_for_its_own_lease_to_end(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    await a.crash()
    again = hub.host("a")
    took_s = await hub.until(lambda: again.owned == ALL, within_s=2 * TTL_S)
    assert took_s > 0.5 * TTL_S


@virtual
async def test_the_lease_of_a_process_known_to_be_dead_is_not_waited_for(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    await a.crash()
    again = hub.host("a", dead=lambda incarnation: incarnation == "i1")
    took_s = await hub.until(lambda: again.owned == ALL, within_s=TTL_S)
    assert took_s < 1
    assert await hub.epochs() == [2] * 8


@virtual
async def test_what_a_dead_shard_hosted_is_opened_under_new_epochs(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.shards.log.clear()
    a.member.shard_died([2, 5])
    await hub.until(lambda: len(a.shards.log) == 2, within_s=1)
    assert a.shards.log == [("assign", 2), ("assign", 5)]
    assert await hub.epochs() == [1, 1, 2, 1, 1, 2, 1, 1]
    # What the dead one had still said is about an old epoch.
    a.member.released(2, 1)
    a.member.lost(5, 1, "gone")
    assert a.member.serving() == {p: 2 if p in {2, 5} else 1 for p in range(8)}


@virtual
async def test_a_moved_partition_is_drained_and_opened_under_a_new_epoch(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.shards.log.clear()
    a.member.move([3])
    await hub.until(lambda: len(a.shards.log) == 2, within_s=1)
    assert a.shards.log == [("revoke", 3), ("assign", 3)]
    assert a.member.serving()[3] == 2


@virtual
async def test_a_broken_partition_is_tried_again_ever_less_often(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.shards.opens = False
    tries = 0
    a.member.lost(4, 1, "record 7 fails its checksum")
    for _ in range(600):
        await pass_time(1)
        held = a.shards.assigned[4]
        if held > tries + 1:
            tries += 1
            a.member.lost(4, held, "record 7 fails its checksum")
    assert 10 <= tries <= 20
    row = a.member.describe()["partitions"][4]
    assert (row["phase"], row["trouble"]) == ("broken", "record 7 fails its checksum")
    assert row["trouble_s"] > 0
    assert row["unserved_s"] > 0
    assert set(a.member.serving()) == ALL - {4}
    a.shards.opens = True
    await hub.until(lambda: 4 in a.member.serving(), within_s=100)


@virtual
async def test_a_claim_whose_answer_was_lost_is_settled_by_the_next_look(hub: FakeHub) -> None:
    a = hub.host("a")
    a.store.unknown = {"claim"}
    await hub.until(lambda: a.owned == ALL, within_s=TTL_S)
    assert sorted(await hub.epochs()) == [1] * 7 + [2]
    a.store.unknown = {"claim"}
    a.member.shard_died([0])
    await hub.until(lambda: 0 in a.member.serving(), within_s=TTL_S)
    assert a.shards.assigned[0] == (await hub.epochs())[0]


@virtual
async def test_a_release_whose_answer_was_lost_is_repeated(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    a.store.unknown = {"release"}
    b = hub.host("b")
    await hub.until(lambda: len(a.owned) == len(b.owned) == 4, within_s=3 * TTL_S)
    assert a.owned | b.owned == ALL


@virtual
async def test_database_time_is_passed_on_as_an_offset(hub: FakeHub) -> None:
    a = hub.host("a")
    await a.member.wait_settled()
    assert a.shards.clock_offset == 1_700_000_000_000_000
    assert a.shards.until_s == pytest.approx(0.8 * TTL_S, abs=0.01)


@pytest.mark.parametrize("what", ["epochs", "journals", "identity"])
def test_a_store_that_was_taken_back_in_time_is_claimed_anew(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run(hub: FakeHub) -> None:
        a = hub.host("a")
        await a.member.wait_settled()
        backup = copy.deepcopy(hub.store._hub.partitions)
        before = [each.epoch for each in backup]
        if what == "epochs":
            a.member.shard_died(ALL)
            await a.member.wait_settled()
        elif what == "journals":
            for each in hub.store._hub.partitions:
                each.commit_lsn = 7
        await pass_time(TTL_S)
        serving = a.member.serving()
        a.shards.log.clear()
        if what == "identity":
            a.store.identity = "1/2"
            await pass_time(TTL_S)
            assert a.member.serving() == serving  # it was not known before
            a.store.identity = "1/3"
        else:
            hub.store._hub.partitions[:] = backup
        await hub.until(lambda: ("discard", 0) in a.shards.log, within_s=TTL_S)
        await hub.until(lambda: set(a.member.serving()) == ALL, within_s=TTL_S)
        epochs = [row.epoch for row in (await hub.store.view()).partitions]
        assert list(a.member.serving().values()) == epochs
        assert all(new > old for new, old in zip(epochs, before, strict=True))
        assert "the store is not what it was" in caplog.text
        caplog.clear()
        await pass_time(3 * TTL_S)
        assert a.member.serving() == dict(enumerate(epochs))
        assert not caplog.records

    run()
