"""Contract: checkpoints, truncation and where recovery starts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import EpochFenced
from shardrt.store.base import Append, Checkpoint, ExecutionKey, HistoryChunk, PartitionHead
from tests.store.hubs import appended, checkpoint, collect, keys, owned, row, taken_over

if TYPE_CHECKING:
    from shardrt.store.base import Store
    from tests.store.hubs import Stores


async def history_of(
    store: Store, partition: int, instance_id: str, execution_id: str
) -> list[HistoryChunk]:
    return await store.history([ExecutionKey(partition, instance_id, execution_id)])


def chunk(seq: int, events: bytes = b"[]", instance: str = "a", execution: str = "e1"):
    return HistoryChunk(instance, execution, seq, events)


async def owned_with(store: Store, records: int) -> int:
    epoch = await owned(store)
    await appended(store, epoch, *(b"record" for _ in range(records)))
    return epoch


async def test_a_partition_without_checkpoint_starts_empty(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    assert await store.head(0, epoch) == PartitionHead(epoch, 2, 0, b"")


async def test_a_checkpoint_is_where_recovery_starts(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 3)
    await store.checkpoint(
        checkpoint(epoch, 2, state=b"\0state\xff", upserts=[row()], chunks=[chunk(0, b"[1]")])
    )
    assert await store.head(0, epoch) == PartitionHead(epoch, 3, 2, b"\0state\xff")
    assert await store.load(keys(0, ["a"])) == [row()]
    assert await history_of(store, 0, "a", "e1") == [chunk(0, b"[1]")]
    newer = await taken_over(store)
    assert await store.head(0, newer) == PartitionHead(newer, 3, 2, b"\0state\xff")


@pytest.mark.parametrize("forgets", [False, True])
async def test_a_fenced_owner_cannot_checkpoint(stores: Stores, forgets: bool):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    await store.checkpoint(checkpoint(epoch, 1, upserts=[row("a"), row("b")], chunks=[chunk(0)]))
    newer = await taken_over(store)
    late = checkpoint(
        epoch,
        2,
        state=b"late",
        upserts=[row("a", status="Failed"), row("c")],
        chunks=[chunk(0, b"[late]"), chunk(1)],
        resets=["a"] if forgets else [],
        deletes=["b"] if forgets else [],
    )
    with pytest.raises(EpochFenced, match=f"partition 0: epoch {epoch}"):
        await store.checkpoint(late)
    assert await store.head(0, newer) == PartitionHead(newer, 2, 1, b"state")
    assert sorted(await store.load(keys(0, ["a", "b", "c"])), key=str) == [row("a"), row("b")]
    assert await history_of(store, 0, "a", "e1") == [chunk(0)]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("lsn", [1, 4])
async def test_a_checkpoint_neither_goes_back_nor_ahead_of_the_journal(
    stores: Stores, lsn: int, forgets: bool
):
    store = await stores.open()
    epoch = await owned_with(store, 3)
    await store.checkpoint(checkpoint(epoch, 2))
    deletes = ["b"] if forgets else []
    wrong = checkpoint(epoch, lsn, state=b"wrong", upserts=[row()], deletes=deletes)
    with pytest.raises(ValueError, match=rf"LSN {lsn} is outside 2\.\.3"):
        await store.checkpoint(wrong)
    assert await store.head(0, epoch) == PartitionHead(epoch, 3, 2, b"state")
    assert await store.load(keys(0, ["a"])) == []


async def test_a_checkpoint_written_twice_is_as_one(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    first = checkpoint(epoch, 1, upserts=[row("a"), row("b")], chunks=[chunk(0), chunk(1)])
    second = checkpoint(
        epoch,
        2,
        upserts=[row("a", execution_id="e2"), row("c")],
        chunks=[chunk(0, execution="e2"), chunk(0, instance="c")],
        resets=["a"],
        deletes=["b"],
    )
    for each in (first, second):
        await store.checkpoint(each)
        before = await contents(store)
        await store.checkpoint(each)
        assert await contents(store) == before
    assert await contents(store) == [
        row("a", execution_id="e2"),
        row("c"),
        chunk(0, execution="e2"),
        chunk(0, instance="c"),
    ]


async def contents(store: Store) -> list[object]:
    rows = sorted(await store.load(keys(0, ["a", "b", "c"])), key=lambda each: each.instance_id)
    history = [
        each
        for instance in ("a", "b", "c")
        for execution in ("e1", "e2")
        for each in await history_of(store, 0, instance, execution)
    ]
    return [*rows, *history]


async def test_a_reset_forgets_other_executions(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 3)
    await store.checkpoint(
        checkpoint(
            epoch,
            1,
            upserts=[row("a"), row("b")],
            chunks=[chunk(0), chunk(1), chunk(0, instance="b")],
        )
    )
    await store.checkpoint(
        checkpoint(
            epoch,
            2,
            upserts=[row("a", execution_id="e2")],
            chunks=[chunk(0, b"[new]", execution="e2")],
            resets=["a"],
        )
    )
    assert await contents(store) == [
        row("a", execution_id="e2"),
        row("b"),
        chunk(0, b"[new]", execution="e2"),
        chunk(0, instance="b"),
    ]


async def test_a_reset_goes_by_the_stored_row_if_the_checkpoint_has_none(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    both = [chunk(0), chunk(0, execution="e2")]
    await store.checkpoint(checkpoint(epoch, 1, upserts=[row(execution_id="e2")], chunks=both))
    await store.checkpoint(checkpoint(epoch, 2, resets=["a", "nobody"]))
    assert await contents(store) == [row(execution_id="e2"), chunk(0, execution="e2")]


async def test_a_deleted_instance_takes_its_history_along(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    chunks = [chunk(0), chunk(0, execution="e2"), chunk(0, instance="b")]
    await store.checkpoint(checkpoint(epoch, 1, upserts=[row("a"), row("b")], chunks=chunks))
    await store.checkpoint(checkpoint(epoch, 2, deletes=["a", "nobody"]))
    assert await contents(store) == [row("b"), chunk(0, instance="b")]


async def test_an_instance_deleted_and_created_again_is_the_new_one(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    chunks = [chunk(0, b"[old]"), chunk(1, b"[old]"), chunk(0, execution="e2")]
    await store.checkpoint(checkpoint(epoch, 1, upserts=[row("a", tags={"k": "v"})], chunks=chunks))
    again = checkpoint(
        epoch, 2, upserts=[row("a", name="other")], chunks=[chunk(0, b"[new]")], deletes=["a"]
    )
    await store.checkpoint(again)
    assert await contents(store) == [row("a", name="other"), chunk(0, b"[new]")]


async def test_history_is_by_execution_and_in_order(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    await store.checkpoint(checkpoint(epoch, 1, chunks=[chunk(10, b"[3]"), chunk(2, b"[2]")]))
    await store.checkpoint(
        checkpoint(epoch, 2, chunks=[chunk(0, b"[1]"), chunk(0, execution="e2")])
    )
    assert [each.events for each in await history_of(store, 0, "a", "e1")] == [
        b"[1]",
        b"[2]",
        b"[3]",
    ]
    assert await history_of(store, 0, "a", "e3") == await history_of(store, 1, "a", "e1") == []


async def test_instances_of_partitions_do_not_mix(stores: Stores):
    store = await stores.open()
    epochs = [await owned(store, partition) for partition in (0, 1)]
    for partition, epoch in enumerate(epochs):
        await appended(store, epoch, b"record", partition=partition)
        upserts = [row(name=f"of {partition}")]
        await store.checkpoint(
            checkpoint(epoch, 1, partition=partition, upserts=upserts, chunks=[chunk(0)])
        )
    await store.checkpoint(checkpoint(epochs[1], 1, partition=1, deletes=["a"]))
    assert await store.load(keys(0, ["a"])) == [row(name="of 0")]
    assert await store.load(keys(1, ["a"])) == []
    assert (await history_of(store, 0, "a", "e1"), await history_of(store, 1, "a", "e1")) == (
        [chunk(0)],
        [],
    )


async def test_truncation_never_passes_the_checkpoint(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 5)
    assert await store.truncate(0, epoch, 5) == 0
    await store.checkpoint(checkpoint(epoch, 3))
    assert await store.truncate(0, epoch, 1) == 1
    assert await store.truncate(0, epoch, 5) == 2
    assert await store.truncate(0, epoch, 5) == 0
    assert [lsn for lsn, _ in await collect(store.read(0, 3))] == [4, 5]
    assert await store.position(0) == (epoch, 5)


async def test_truncation_leaves_other_partitions_alone(stores: Stores):
    store = await stores.open()
    epochs = [await owned(store, partition) for partition in (0, 1)]
    await store.append([Append(p, epochs[p], 1, b"record") for p in (0, 1)])
    await store.checkpoint(checkpoint(epochs[0], 1))
    assert await store.truncate(0, epochs[0], 1) == 1
    assert await collect(store.read(1, 0)) == [(1, b"record")]


async def test_a_fenced_owner_cannot_truncate(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 2)
    await store.checkpoint(checkpoint(epoch, 2))
    newer = await taken_over(store)
    with pytest.raises(EpochFenced, match=f"partition 0: epoch {epoch}"):
        await store.truncate(0, epoch, 2)
    assert len(await collect(store.read(0, 0))) == 2
    assert await store.truncate(0, newer, 2) == 2


async def test_a_fenced_owner_cannot_read_where_recovery_starts(stores: Stores):
    store = await stores.open()
    epoch = await owned(store)
    await taken_over(store)
    with pytest.raises(EpochFenced, match=f"partition 0: epoch {epoch}"):
        await store.head(0, epoch)


async def test_checkpoints_and_appends_side_by_side(stores: Stores):
    store = await stores.open()
    epoch = await owned_with(store, 1)

    async def append() -> None:
        for lsn in range(2, 102):
            assert await store.append([Append(0, epoch, lsn, b"record")]) == {0}
            await asyncio.sleep(0)

    appending = asyncio.ensure_future(append())
    written = 0
    while not appending.done():
        written += 1
        _, lsn = await store.position(0)
        await store.checkpoint(checkpoint(epoch, lsn, upserts=[row(updated_at=lsn)]))
        await asyncio.sleep(0)
    await appending
    _, lsn = await store.position(0)
    assert lsn == 101
    assert written > 1
    head = await store.head(0, epoch)
    assert await store.load(keys(0, ["a"])) == [row(updated_at=head.checkpoint_lsn)]


async def test_checkpoints_of_two_owners_at_once_leave_the_new_owners(stores: Stores):
    store, other = await stores.open(), await stores.open()
    epoch = await owned_with(store, 1)
    ids = [f"i{number:03}" for number in range(200)]

    def of(epoch: int, owner: str, order: int) -> Checkpoint:
        rows = [row(each, name=owner) for each in ids[::order]]
        return checkpoint(epoch, 1, state=owner.encode(), upserts=rows)

    late = asyncio.ensure_future(store.checkpoint(of(epoch, "old", -1)))
    newer = await taken_over(other)
    await other.checkpoint(of(newer, "new", 1))
    outcome = (await asyncio.gather(late, return_exceptions=True))[0]
    assert outcome is None or isinstance(outcome, EpochFenced)
    assert (await store.head(0, newer)).state == b"new"
    assert {each.name for each in await store.load(keys(0, ids))} == {"new"}
