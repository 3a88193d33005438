"""A server that was replaced: what was claimed on the other one must not write here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardrt.errors import CommitUnknown, EpochFenced, StoreUnavailable
from shardrt.store.base import ERA, Append, era_of
from shardrt.store.postgres.database import is_outdated
from tests.store.hubs import LONG_US, Stores, appended, collect, host, owned
from tests.store.proxy import proxied
from tests.store.test_postgres_locks import plain
from tests.waiting import eventually

if TYPE_CHECKING:
    from shardrt.store.base import Store
    from shardrt.store.postgres.database import Database

ELSEWHERE = "1/1"


def database_of(store: Store) -> Database:
    database: Database = store._database  # type: ignore[attr-defined]
    return database


async def written_elsewhere(store: Store) -> None:
    """Make the hub one that was last written on another server."""
    async with plain(store, autocommit=True) as connection:
        schema = database_of(store).url.schema
        await connection.execute(f"UPDATE {schema}.hub SET identity = '{ELSEWHERE}'")


async def test_whoever_comes_first_to_a_promoted_server_fences_all_that_was_claimed(pg: Stores):
    store, other = await pg.open(), await pg.open()
    epoch = await owned(store)
    await owned(store, 1)
    await appended(store, epoch, b"one")
    await written_elsewhere(store)
    database_of(other).lane.drop("as when its server is gone")
    await other.renew(host("b"), LONG_US)
    assert await store.append([Append(0, epoch, 2, b"two")]) == set()
    assert await store.position(0) == (ERA + epoch, 1)
    with pytest.raises(EpochFenced):
        await store.head(0, epoch)
    view = await store.view()
    assert [era_of(row.epoch) for row in view.partitions] == [1, 1, 1, 1]
    assert view.era == 1
    assert view.partitions[0].owner == "host/1"
    again = await owned(store)
    assert again == ERA + epoch + 1
    assert await store.append([Append(0, again, 2, b"two")]) == {0}
    assert [record for _, record in await collect(store.read(0, 0))] == [b"one", b"two"]


async def test_connecting_again_begins_no_era(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    for lsn in (1, 2, 3):
        assert await store.append([Append(0, epoch, lsn, b"x")]) == {0}
        database_of(store).lane.drop("as when its server restarts")
    assert await store.position(0) == (epoch, 3)


async def test_each_replacement_begins_an_era(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    for era in (1, 2):
        await written_elsewhere(store)
        database_of(store).lane.drop("as when its server is gone")
        assert await store.position(0) == (era * ERA + epoch, 0)


async def test_an_era_that_a_fail_over_lost_is_not_given_out_again(pg: Stores):
    """A standby is promoted, and another that has nothing of what was written there."""
    store = await pg.open()
    epoch = await owned(store)
    database = database_of(store)
    eras = []
    for timeline in (2, 3):
        async with plain(store, autocommit=True) as connection:
            await connection.execute("UPDATE hub SET identity = '7/1', era = 0")
            await connection.execute(f"UPDATE partitions SET epoch = {epoch} WHERE partition = 0")
        await database.write("begin_era", identity=f"7/{timeline}")
        eras.append((await store.view()).partitions[0].epoch - epoch)
    assert eras == [2 * ERA, 3 * ERA]


async def test_a_primary_that_was_replaced_is_not_believed(pg: Stores):
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        first = await store.renew(host("a"), LONG_US)
        await store.view()
        system, _, timeline = first.identity.partition("/")
        # As if we had been at the server that was promoted meanwhile.
        database_of(store).identity = f"{system}/{int(timeline) + 1}"
        await proxy.drop()
        await eventually(lambda: database_of(store).lane._pgconn is None)
        with pytest.raises(StoreUnavailable, match=r"was replaced: .*; shut it down") as failed:
            await store.renew(host("a"), LONG_US)
        assert "\n" not in str(failed.value)
        with pytest.raises(StoreUnavailable, match=r"was replaced"):
            await store.view()
        await through.close()


async def test_connections_to_a_primary_that_was_replaced_are_given_up(pg: Stores):
    """Those that still stand, as they do when it has not ended."""
    store = await pg.open()
    await store.renew(host("a"), LONG_US)
    database = database_of(store)
    old = await database.take()
    await database.give(old)
    assert await database.take() is old
    system, _, timeline = database.identity.partition("/")
    database.identity = database._identities[old] = f"{system}/{int(timeline) - 1}"
    async with database._make_pool() as pool, pool.connection():
        assert database.identity == f"{system}/{timeline}"
    assert database.lane._pgconn is None
    await database.give(old)
    fresh = await database.take()
    assert fresh is not old
    await database.give(fresh)


@pytest.mark.parametrize(
    ("found", "known", "outdated"),
    [
        ("7/1", "7/2", True),
        ("7/9", "7/10", True),
        ("7/2", "7/2", False),
        ("7/3", "7/2", False),
        ("8/1", "7/2", False),
        ("7/1", "", False),
    ],
)
def test_an_identity_is_outdated_if_its_timeline_has_ended(found: str, known: str, outdated: bool):
    assert is_outdated(found, known) is outdated


async def test_a_commit_that_the_server_warns_of_is_read_back(pg: Stores):
    """As it does when somebody cancels one that waits for a standby: it succeeds, here only."""
    store = await pg.open()
    epoch = await owned(store)
    schema = database_of(store).url.schema
    async with plain(store, autocommit=True) as looker:
        await looker.execute(
            f"CREATE FUNCTION {schema}.warn() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE WARNING 'canceling wait for synchronous replication'; "
            "RETURN NULL; END $$"
        )
        await looker.execute(
            f"CREATE TRIGGER warn AFTER INSERT ON {schema}.journal EXECUTE FUNCTION {schema}.warn()"
        )
        with pytest.raises(CommitUnknown, match="canceling wait for synchronous"):
            await store.append([Append(0, epoch, 1, b"one")])
        assert await store.position(0) == (epoch, 1)
        await looker.execute(f"DROP TRIGGER warn ON {schema}.journal")
    assert await store.append([Append(0, epoch, 2, b"two")]) == {0}
