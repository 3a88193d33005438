"""Contract: hosts, claims and the hub itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from shardrt.errors import ConfigInvalid, EpochFenced, HubMismatch
from shardrt.store.base import PARTITIONS_DEFAULT, Append, Ownership
from tests.store.hubs import EXPIRED_US, LONG_US, PARTITIONS, appended, checkpoint, host, owned
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.store.hubs import Stores

HOUR_US = 3_600_000_000


async def test_a_new_hub_has_free_partitions(stores: Stores):
    store = await stores.bare()
    hub = await store.create(3)
    assert (hub.partitions, hub.format) == (3, 1)
    view = await store.view()
    assert view.hosts == ()
    assert view.partitions == tuple(Ownership(p, None, 0, 0, 0) for p in range(3))


async def test_a_hub_has_the_default_number_of_partitions_if_nobody_says(stores: Stores):
    store = await stores.bare()
    assert (await store.create(0)).partitions == PARTITIONS_DEFAULT


async def test_creating_a_hub_again_changes_nothing(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    assert await store.create(PARTITIONS) == await store.create(0)
    assert await store.position(0) == (epoch, 0)


async def test_another_number_of_partitions_is_refused(stores: Stores):
    store = await stores.open()
    with pytest.raises(HubMismatch, match="4 partitions, not 5"):
        await store.create(5)
    with pytest.raises(ConfigInvalid, match="at least 1"):
        await store.create(-1)


async def test_concurrent_creators_agree(stores: Stores):
    several = [await stores.bare() for _ in range(4)]
    hubs = await asyncio.gather(*(store.create(PARTITIONS) for store in several))
    assert len(set(hubs)) == 1
    assert len((await several[0].view()).partitions) == PARTITIONS


async def test_renewing_sets_expiry_by_database_time(stores: Stores):
    store = await stores.open()
    view = await store.renew(host(), LONG_US)
    assert view.hosts == (replace(host(), expires_at=view.now + LONG_US),)
    later = await store.renew(replace(host(), draining=True, shards=5), LONG_US)
    assert later.now > view.now
    (present,) = later.hosts
    assert (present.draining, present.shards) == (True, 5)
    assert present.expires_at == later.now + LONG_US


async def test_the_view_shows_every_host_and_partition(stores: Stores):
    store = await stores.open()
    await store.renew(host("b"), LONG_US)
    epoch = await owned(store, 1, "b/1")
    await appended(store, epoch, b"one", b"two", partition=1)
    await store.checkpoint(checkpoint(epoch, 1, partition=1))
    view = await store.renew(host("a"), LONG_US)
    assert [each.host_id for each in view.hosts] == ["a", "b"]
    assert view.partitions[1] == Ownership(1, "b/1", epoch, 2, 1)
    looked = await store.view()
    assert (looked.hosts, looked.partitions) == (view.hosts, view.partitions)
    assert looked.now >= view.now


async def test_a_second_live_incarnation_is_refused(stores: Stores):
    store = await stores.open()
    await store.renew(host(incarnation="1"), LONG_US)
    with pytest.raises(EpochFenced, match="host host"):
        await store.renew(host(incarnation="2"), LONG_US)
    await store.renew(host(incarnation="1"), LONG_US)


async def test_an_expired_incarnation_is_replaced_and_then_refused(stores: Stores):
    store = await stores.open()
    await store.renew(host(incarnation="1"), EXPIRED_US)
    view = await store.renew(host(incarnation="2"), LONG_US)
    assert [each.incarnation for each in view.hosts] == ["2"]
    with pytest.raises(EpochFenced):
        await store.renew(host(incarnation="1"), LONG_US)


async def test_hosts_expired_for_more_than_an_hour_are_deleted(stores: Stores):
    store = await stores.open()
    await store.renew(host("old"), -2 * HOUR_US)
    await store.renew(host("recent"), EXPIRED_US)
    view = await store.renew(host("live"), LONG_US)
    assert [each.host_id for each in view.hosts] == ["live", "recent"]
    assert [each.host_id for each in (await store.view()).hosts] == ["live", "recent"]


async def test_a_live_hosts_partition_cannot_be_claimed(stores: Stores):
    store = await stores.open()
    await store.renew(host("a"), LONG_US)
    epoch = await owned(store, 0, "a/1")
    assert await store.claim(0, epoch, "b/1") is None
    assert await store.claim(0, epoch, "a/2") is None
    assert await store.position(0) == (epoch, 0)


async def test_the_owner_itself_may_claim_again(stores: Stores):
    store = await stores.open()
    await store.renew(host("a"), LONG_US)
    epoch = await owned(store, 0, "a/1")
    assert await store.claim(0, epoch, "a/1") == epoch + 1


@pytest.mark.parametrize("ttl", [None, EXPIRED_US])
async def test_the_partition_of_an_absent_or_expired_host_can_be_claimed(
    stores: Stores, ttl: int | None
):
    store = await stores.open()
    if ttl is not None:
        await store.renew(host("a"), ttl)
    epoch = await owned(store, 0, "a/1")
    assert await store.claim(0, epoch, "b/1") == epoch + 1
    assert (await store.view()).partitions[0].owner == "b/1"


async def test_the_partition_of_a_replaced_incarnation_can_be_claimed(stores: Stores):
    store = await stores.open()
    await store.renew(host("a", "1"), EXPIRED_US)
    epoch = await owned(store, 0, "a/1")
    await store.renew(host("a", "2"), LONG_US)
    assert await store.claim(0, epoch, "a/2") == epoch + 1


@pytest.mark.parametrize("off_by", [-1, 1])
async def test_a_claim_must_have_seen_the_present_epoch(stores: Stores, off_by: int):
    store = await stores.open()
    epoch = await owned(store)
    assert await store.claim(0, epoch + off_by, "b/1") is None


async def test_concurrent_claims_have_one_winner(stores: Stores):
    several = [await stores.open() for _ in range(4)]
    epochs = await asyncio.gather(
        *(store.claim(0, 0, f"{number}/1") for number, store in enumerate(several))
    )
    assert sorted(epochs, key=str) == [1, None, None, None]
    assert (await several[0].view()).partitions[0].owner == f"{epochs.index(1)}/1"


async def test_a_released_partition_is_free(stores: Stores):
    store = await stores.open()
    await store.renew(host("a"), LONG_US)
    epoch = await owned(store, 0, "a/1")
    assert await store.release(0, epoch)
    assert (await store.view()).partitions[0] == Ownership(0, None, epoch, 0, 0)
    assert await store.claim(0, epoch, "b/1") == epoch + 1


async def test_a_fenced_owner_cannot_release(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    newer = await owned(store, 0, "b/1")
    assert not await store.release(0, epoch)
    assert (await store.view()).partitions[0] == Ownership(0, "b/1", newer, 0, 0)


async def test_leaving_gives_up_what_is_still_owned(stores: Stores):
    store = await stores.open()
    for each in (host("a"), host("b")):
        await store.renew(each, LONG_US)
    for partition, owner in enumerate(["a/1", "b/1", "a/1"]):
        await owned(store, partition, owner)
    await store.leave(host("a"))
    view = await store.view()
    assert [each.host_id for each in view.hosts] == ["b"]
    assert [each.owner for each in view.partitions] == [None, "b/1", None, None]


async def test_a_replaced_incarnation_leaves_its_successor_alone(stores: Stores):
    store = await stores.open()
    await store.renew(host("a", "1"), EXPIRED_US)
    await store.renew(host("a", "2"), LONG_US)
    await owned(store, 0, "a/2")
    await store.leave(host("a", "1"))
    view = await store.view()
    assert [each.incarnation for each in view.hosts] == ["2"]
    assert view.partitions[0].owner == "a/2"


async def test_a_claim_during_appends_loses_no_record(stores: Stores):
    store, other = await stores.open(), await stores.open()
    epoch = await owned(store)

    async def append_until_fenced() -> int:
        lsn = 0
        while await store.append([Append(0, epoch, lsn + 1, b"record")]):
            lsn += 1
            await asyncio.sleep(0)  # the memory store never does
        return lsn

    async def reached(lsn: int) -> bool:
        return (await other.position(0))[1] >= lsn

    async def claim() -> tuple[int, int]:
        await eventually(lambda: reached(5))
        newer = await owned(other, 0, "b/1")
        head = await other.head(0, newer)
        return newer, head.commit_lsn

    appending = asyncio.ensure_future(append_until_fenced())
    newer, seen_lsn = await claim()
    assert await appending == seen_lsn
    assert await store.position(0) == (newer, seen_lsn)
