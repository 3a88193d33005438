"""PostgreSQL: who waits for whom, and that nobody waits for ever.

An owner or claimer that stands still in the middle of a transaction is played by a plain
connection that has run the same statement and not committed yet.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from shardrt.errors import EpochFenced, StoreUnavailable
from shardrt.store.base import Append
from tests.store.hubs import (
    EXPIRED_US,
    appended,
    checkpoint,
    collect,
    host,
    keys,
    owned,
    row,
    taken_over,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardrt.store.base import Store
    from shardrt.store.postgres.store import PostgresStore
    from tests.store.hubs import Stores

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@asynccontextmanager
async def plain(store: Store, *, autocommit: bool = False) -> AsyncIterator[Connection]:
    """A connection of somebody else's to the store's database, in its schema."""
    url = database_url(store)
    async with await psycopg.AsyncConnection.connect(url.conninfo, autocommit=True) as connection:
        await connection.execute(f'SET search_path = "{url.schema}"'.encode())
        await connection.set_autocommit(autocommit)
        yield connection


def database_url(store: Store):
    postgres: PostgresStore = store  # type: ignore[assignment]
    return postgres._database.url


async def waiting(looker: Connection) -> bool:
    cursor = await looker.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database() AND application_name = 'shardrt'"
    )
    return (await cursor.fetchone()) == (1,)


async def test_a_claim_waits_for_an_append_in_flight_and_sees_it(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as owner, plain(store, autocommit=True) as looker:
        await owner.execute("UPDATE partitions SET commit_lsn = 1 WHERE partition = 0")
        await owner.execute("INSERT INTO journal VALUES (0, 1, 'in flight')")
        claim = asyncio.ensure_future(store.claim(0, epoch, "b/1"))
        await eventually(lambda: waiting(looker))
        assert not claim.done()
        await owner.commit()
    newer = await claim
    assert newer == epoch + 1
    assert (await store.head(0, newer)).commit_lsn == 1
    assert await collect(store.read(0, 0)) == [(1, b"in flight")]


async def test_a_claim_waits_for_a_renewal_in_flight_and_respects_it(pg: Stores):
    store = await pg.open()
    await store.renew(host(), EXPIRED_US)
    epoch = await owned(store)
    async with plain(store) as renewer, plain(store, autocommit=True) as looker:
        await renewer.execute("UPDATE hosts SET expires_at = expires_at + 3600000000")
        claim = asyncio.ensure_future(store.claim(0, epoch, "b/1"))
        await eventually(lambda: waiting(looker))
        assert not claim.done()
        await renewer.commit()
    assert await claim is None
    assert await store.position(0) == (epoch, 0)


async def test_an_append_waits_for_a_claim_and_is_fenced(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as claimer, plain(store, autocommit=True) as looker:
        await claimer.execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 0")
        append = asyncio.ensure_future(store.append([Append(0, epoch, 1, b"late")]))
        await eventually(lambda: waiting(looker))
        await claimer.commit()
    assert await append == set()
    assert await collect(store.read(0, 0)) == []


async def test_an_append_survives_a_claim_that_is_rolled_back(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as claimer, plain(store, autocommit=True) as looker:
        await claimer.execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 0")
        append = asyncio.ensure_future(store.append([Append(0, epoch, 1, b"one")]))
        await eventually(lambda: waiting(looker))
        await claimer.rollback()
    assert await append == {0}


async def test_one_claim_fences_only_its_partition_of_a_waiting_batch(pg: Stores):
    store = await pg.open()
    epochs = [await owned(store, partition) for partition in range(3)]
    async with plain(store) as claimer, plain(store, autocommit=True) as looker:
        await claimer.execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 1")
        batch = [Append(p, epochs[p], 1, b"record") for p in range(3)]
        append = asyncio.ensure_future(store.append(batch))
        await eventually(lambda: waiting(looker))
        await claimer.commit()
    assert await append == {0, 2}
    assert [len(await collect(store.read(p, 0))) for p in range(3)] == [1, 0, 1]


@pytest.mark.parametrize("deletes", [[], ["b"]])
async def test_a_checkpoint_that_met_a_claim_leaves_nothing_behind(pg: Stores, deletes: list[str]):
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    async with plain(store) as claimer, plain(store, autocommit=True) as looker:
        await claimer.execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 0")
        refused = checkpoint(epoch, 1, upserts=[row()], deletes=deletes)
        late = asyncio.ensure_future(store.checkpoint(refused))
        await eventually(lambda: waiting(looker))
        await claimer.commit()
    with pytest.raises(EpochFenced):
        await late
    assert await store.load(keys(0, ["a"])) == []
    assert (await store.head(0, epoch + 1)).checkpoint_lsn == 0


async def test_a_checkpoint_that_met_an_append_goes_through(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    async with plain(store) as other, plain(store, autocommit=True) as looker:
        await other.execute("UPDATE partitions SET commit_lsn = 2 WHERE partition = 0")
        write = asyncio.ensure_future(store.checkpoint(checkpoint(epoch, 1, upserts=[row()])))
        await eventually(lambda: waiting(looker))
        await other.commit()
    await write
    assert await store.load(keys(0, ["a"])) == [row()]
    head = await store.head(0, epoch)
    assert (head.commit_lsn, head.checkpoint_lsn) == (2, 1)


async def test_an_append_does_not_wait_while_a_checkpoint_writes_its_rows(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    async with plain(store) as blocker, plain(store, autocommit=True) as looker:
        # An uncommitted row of the same key holds the checkpoint up among its rows.
        await blocker.execute("INSERT INTO history VALUES (0, 'a', 'e1', 0, '')")
        await blocker.execute("INSERT INTO checkpoints VALUES (0, '')")
        write = asyncio.ensure_future(store.checkpoint(checkpoint(epoch, 1, upserts=[row()])))
        await eventually(lambda: waiting(looker))
        assert await appended(store, epoch, b"two") == 2
        assert not write.done()
        await blocker.rollback()
    await write


async def test_position_waits_for_an_append_in_flight(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as owner, plain(store, autocommit=True) as looker:
        await owner.execute("UPDATE partitions SET commit_lsn = 1 WHERE partition = 0")
        position = asyncio.ensure_future(store.position(0))
        await eventually(lambda: waiting(looker))
        await owner.commit()
    assert await position == (epoch, 1)


async def test_a_cancelled_append_goes_on_and_the_next_call_waits_for_it(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as blocker, plain(store, autocommit=True) as looker:
        await blocker.execute("SELECT FROM partitions WHERE partition = 0 FOR UPDATE")
        append = asyncio.ensure_future(store.append([Append(0, epoch, 1, b"one")]))
        await eventually(lambda: waiting(looker))
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append
        position = asyncio.ensure_future(store.position(0))
        await asyncio.sleep(0)
        await blocker.rollback()
        assert await position == (epoch, 1)


@pytest.mark.slow
async def test_a_frozen_owner_holds_a_claim_up_for_a_few_seconds_only(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as frozen:
        await frozen.execute("UPDATE partitions SET commit_lsn = 1 WHERE partition = 0")
        with pytest.raises(StoreUnavailable, match="safe to try again"):
            await store.claim(0, epoch, "b/1")
        with pytest.raises(StoreUnavailable, match="safe to try again"):
            await store.append([Append(0, epoch, 1, b"one")])
        await frozen.rollback()
    assert await store.claim(0, epoch, "b/1") == epoch + 1


async def test_the_server_ends_what_a_frozen_client_of_ours_left_open(pg: Stores):
    store = await pg.open()
    await store.append([Append(0, 1, 1, b"")])
    settings = {
        "idle_in_transaction_session_timeout": "5s",
        "statement_timeout": "30s",
        "lock_timeout": "3s",
    }
    pool_connection = await store._database.take()  # type: ignore[attr-defined]
    try:
        for name, value in settings.items():
            cursor = await pool_connection.execute(f"SHOW {name}".encode())
            assert await cursor.fetchone() == (value,)
    finally:
        await store._database.give(pool_connection)  # type: ignore[attr-defined]
    lane_connection = store._database.lane._connection  # type: ignore[attr-defined]
    assert lane_connection.info.parameter_status("application_name") == "shardrt"


async def test_a_hub_never_takes_more_connections_than_allowed(pg: Stores):
    store = await pg.open()
    async with plain(store, autocommit=True) as looker:

        async def connections() -> int:
            cursor = await looker.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND application_name = 'shardrt' "
                "AND query LIKE %s",
                (f'%"{database_url(store).schema}"%',),
            )
            rows = await cursor.fetchall()
            return int(rows[0][0])

        async def load() -> None:
            for _ in range(5):
                await asyncio.gather(*(store.view() for _ in range(5)), store.position(0))

        loading = asyncio.ensure_future(load())
        seen = 0
        while not loading.done():
            seen = max(seen, await connections())
        await loading
    assert seen == 2


async def test_a_cut_of_the_journal_does_not_look_at_what_was_cut_before(pg: Stores):
    # Deleted rows stay until they are vacuumed, so each cut would take longer than the last.
    # One that cannot be there tells who looks.
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one", b"two", b"three")
    await store.checkpoint(checkpoint(epoch, 3))
    assert await store.truncate(0, epoch, 2) == 2
    async with plain(store, autocommit=True) as other:
        await other.execute("INSERT INTO journal VALUES (0, 1, 'again')")
    assert await store.truncate(0, epoch, 3) == 1
    epoch = await taken_over(store)
    assert await store.truncate(0, epoch, 3) == 1
