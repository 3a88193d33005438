"""Contract: fencing and density of the journal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import RecordCorrupt, StoreUnavailable
from shardrt.store.base import Append
from tests.store.hubs import appended, checkpoint, collect, owned, taken_over

if TYPE_CHECKING:
    from tests.store.hubs import Stores


async def test_what_was_appended_can_be_read(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one", b"\0two\xff", b"")
    assert await collect(store.read(0, 0)) == [(1, b"one"), (2, b"\0two\xff"), (3, b"")]
    assert await collect(store.read(0, 2)) == [(3, b"")]
    assert await collect(store.read(0, 3)) == []
    assert await collect(store.read(1, 0)) == []


async def test_another_process_sees_it(stores: Stores):
    store, other = await stores.open(), await stores.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    assert await other.position(0) == (epoch, 1)
    assert await collect(other.read(0, 0)) == [(1, b"one")]


async def test_a_fenced_owner_cannot_append(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    newer = await taken_over(store)
    assert await store.append([Append(0, epoch, 1, b"late")]) == set()
    assert await store.position(0) == (newer, 0)
    assert await collect(store.read(0, 0)) == []


async def test_nobody_can_append_under_an_epoch_to_come(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    assert await store.append([Append(0, epoch + 1, 1, b"early")]) == set()


@pytest.mark.parametrize("lsn", [0, 1, 3, 7])
async def test_only_the_next_lsn_fits(stores: Stores, lsn: int):
    store = await stores.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    assert await store.append([Append(0, epoch, lsn, b"other")]) == set()
    assert await store.position(0) == (epoch, 1)
    assert await collect(store.read(0, 0)) == [(1, b"one")]


async def test_a_new_owner_goes_on_where_the_old_one_ended(stores: Stores):
    store = await stores.open()
    await appended(store, await owned(store), b"one", b"two")
    assert await appended(store, await taken_over(store), b"three") == 3
    assert [lsn for lsn, _ in await collect(store.read(0, 0))] == [1, 2, 3]


async def test_each_partition_of_a_batch_stands_or_falls_alone(stores: Stores):
    store = await stores.open()
    epochs = [await owned(store, partition) for partition in range(3)]
    await taken_over(store, 1)
    batch = [Append(p, epochs[p], 1, b"%d" % p) for p in range(3)]
    assert await store.append([*batch, Append(3, 1, 1, b"never claimed")]) == {0, 2}
    records = [await collect(store.read(p, 0)) for p in range(4)]
    assert records == [[(1, b"0")], [], [(1, b"2")], []]


async def test_an_unknown_partition_is_missing_from_the_answer(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    batch = [Append(0, epoch, 1, b"ours"), Append(99, 1, 1, b"nobody's")]
    assert await store.append(batch) == {0}


async def test_an_empty_batch_is_nothing(stores: Stores):
    store = await stores.open()
    assert await store.append([]) == set()


async def test_two_records_of_one_partition_are_a_bug(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    with pytest.raises(AssertionError):
        await store.append([Append(0, epoch, 1, b"one"), Append(0, epoch, 2, b"two")])


async def test_concurrent_appends_of_one_lsn_have_one_winner(stores: Stores):
    store, other = await stores.open(), await stores.open()
    epoch = await owned(store)
    ours, theirs = await asyncio.gather(
        store.append([Append(0, epoch, 1, b"ours")]),
        other.append([Append(0, epoch, 1, b"theirs")]),
    )
    assert sorted([ours, theirs], key=len) == [set(), {0}]
    assert await collect(store.read(0, 0)) == [(1, b"ours" if ours else b"theirs")]


async def test_calls_side_by_side_on_one_store_all_get_their_answers(stores: Stores):
    store = await stores.open()
    epochs = [await owned(store, partition) for partition in range(4)]

    async def fill(partition: int) -> None:
        for lsn in range(1, 21):
            batch = [Append(partition, epochs[partition], lsn, b"%d" % lsn)]
            assert await store.append(batch) == {partition}

    await asyncio.gather(*(fill(partition) for partition in range(4)))
    assert [await store.position(p) for p in range(4)] == [(epoch, 20) for epoch in epochs]


async def test_a_cancelled_append_is_decided_when_we_look(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    append = asyncio.ensure_future(store.append([Append(0, epoch, 1, b"one")]))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.gather(append, return_exceptions=True)
    _, lsn = await store.position(0)
    assert [each for each, _ in await collect(store.read(0, 0))] == list(range(1, lsn + 1))
    assert await appended(store, epoch, b"next") == lsn + 1


async def test_large_records_and_long_journals_stream(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    records = [b"%d" % lsn * (300_000 if lsn == 30 else 1) for lsn in range(60)]
    await appended(store, epoch, *records)
    assert await collect(store.read(0, 0)) == list(enumerate(records, 1))


async def test_a_batch_larger_than_any_socket_buffer(stores: Stores):
    store = await stores.open()
    epochs = [await owned(store, partition) for partition in range(4)]
    batch = [Append(p, epochs[p], 1, bytes([p]) * 3_000_000) for p in range(4)]
    assert await store.append(batch) == {0, 1, 2, 3}
    assert await collect(store.read(3, 0)) == [(1, batch[3].record)]


async def test_a_gap_in_the_journal_is_reported(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one", b"two", b"three")
    await store.checkpoint(checkpoint(epoch, 2))
    await store.truncate(0, epoch, 2)
    with pytest.raises(RecordCorrupt, match="journal record 1 is missing"):
        await collect(store.read(0, 0))


async def test_the_position_of_no_partition_is_refused(stores: Stores):
    store = await stores.open()
    with pytest.raises(StoreUnavailable, match="no partition 99"):
        await store.position(99)
