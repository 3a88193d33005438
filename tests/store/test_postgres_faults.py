"""PostgreSQL in trouble: what is said, that nothing is guessed, and that it passes by itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import StoreUnavailable
from shardrt.store.base import Append
from tests.store.hubs import LONG_US, Stores, appended, collect, host, owned
from tests.store.proxy import proxied
from tests.store.relay import relayed
from tests.store.test_postgres_locks import plain
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardrt.store.base import Store
    from tests.store.test_postgres_locks import Connection


@asynccontextmanager
async def read_only(store: Store) -> AsyncIterator[Connection]:
    """Have new sessions take no writes, as on a standby."""
    async with plain(store, autocommit=True) as looker:
        cursor = await looker.execute("SELECT quote_ident(current_database())")
        ((database,),) = await cursor.fetchall()
        await looker.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        try:
            yield looker
        finally:
            await looker.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")


async def test_a_server_that_was_demoted_is_left_for_the_primary(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    async with read_only(store) as looker:
        await looker.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'shardrt' AND pid <> pg_backend_pid()"
        )
        lane = store._database.lane  # type: ignore[attr-defined]
        await eventually(lambda: lane._pgconn is None)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="name the primary in the store URL"):
                await store.append([Append(0, epoch, 2, b"two")])
        with pytest.raises(StoreUnavailable, match="name the primary in the store URL"):
            await store.release(0, epoch)
    # Its sessions of before are read-only for good: only new ones take writes.
    assert await store.append([Append(0, epoch, 2, b"two")]) == {0}
    assert await store.release(0, epoch)
    assert [record for _, record in await collect(store.read(0, 0))] == [b"one", b"two"]


async def test_a_commit_that_ran_into_a_timeout_has_changed_nothing(
    pg: Stores, monkeypatch: pytest.MonkeyPatch
):
    store = await pg.open()
    epoch = await owned(store)
    database = store._database  # type: ignore[attr-defined]
    impatient = database._queries["session"].replace(b"'30s'", b"'50ms'")
    monkeypatch.setitem(database._queries, "session", impatient)
    await store.renew(host("a"), LONG_US)
    async with plain(store) as other:
        await other.execute("LOCK TABLE journal IN EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"statement timeout; .*is tried again"):
                await store.append([Append(0, epoch, 1, b"one")])
        assert await store.position(0) == (epoch, 0)
        database.lane.drop("as when a session is ended")
        # To connect takes a look at what is locked, too: that is no trouble of the network.
        with pytest.raises(StoreUnavailable, match=r"^postgres.*timeout; .*is tried again"):
            await store.append([Append(0, epoch, 1, b"one")])
    assert await store.append([Append(0, epoch, 1, b"one")]) == {0}


async def test_timeouts_of_a_role_do_not_reach_us(pg: Stores):
    """Who sets them means people, and programs that wait; for ours there are better ones."""
    store = await pg.open()
    async with plain(store, autocommit=True) as looker:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            await looker.execute(f"ALTER ROLE CURRENT_USER SET {name} = '1s'")
        try:
            other = await pg.open()
            connection = await other._database.take()  # type: ignore[attr-defined]
            for name, ours in (("statement_timeout", "30s"), ("lock_timeout", "3s")):
                cursor = await connection.execute(f"SHOW {name}")
                assert await cursor.fetchone() == (ours,)
            await other._database.give(connection)  # type: ignore[attr-defined]
        finally:
            for name in ("statement_timeout", "lock_timeout"):
                await looker.execute(f"ALTER ROLE CURRENT_USER RESET {name}")
            await looker.execute(
                "ALTER ROLE CURRENT_USER RESET idle_in_transaction_session_timeout"
            )


async def test_a_full_disk_changes_nothing_and_passes(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    schema = store._database.url.schema  # type: ignore[attr-defined]
    async with plain(store, autocommit=True) as looker:
        await looker.execute(
            f"CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' "
            "USING ERRCODE = 'disk_full'; END $$"
        )
        await looker.execute(
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.journal "
            f"EXECUTE FUNCTION {schema}.full()"
        )
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"No space left.*make room on the disk"):
                await store.append([Append(0, epoch, 2, b"two")])
        assert await store.position(0) == (epoch, 1)
        await looker.execute(f"DROP TRIGGER full_disk ON {schema}.journal")
    assert await store.append([Append(0, epoch, 2, b"two")]) == {0}


async def test_a_server_without_free_connections_says_so_and_is_asked_ever_less_often(
    pg: Stores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shardrt.store.postgres.database.POOL_S_WAIT", 0.3)
    direct = await pg.open()
    epoch = await owned(direct)
    async with plain(direct, autocommit=True) as looker:
        await looker.execute("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
        try:
            schema = direct._database.url.schema  # type: ignore[attr-defined]
            await looker.execute(f"GRANT ALL ON SCHEMA {schema} TO crowded")
            await looker.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO crowded")
            before, _, after = pg.url.partition("@")
            scheme = before.partition("://")[0]
            other = Stores("postgres", f"{scheme}://crowded:crowded@{after}")
            store = other.make()
            store._database.lane.start()  # type: ignore[attr-defined]
            lane = store._database.lane  # type: ignore[attr-defined]
            for _ in range(4):
                with pytest.raises(
                    StoreUnavailable, match=r"too many connections.*max_connections"
                ):
                    await store.append([Append(0, epoch, 1, b"one")])
            assert lane._backoff_s == 0.4
            await looker.execute("ALTER ROLE crowded CONNECTION LIMIT -1")
            assert await store.append([Append(0, epoch, 1, b"one")]) == {0}
            await store.close()
        finally:
            await looker.execute("DROP OWNED BY crowded")
            await looker.execute("DROP ROLE crowded")


async def test_a_server_that_was_promoted_is_told_of(pg: Stores, caplog: pytest.LogCaptureFixture):
    direct = await pg.open()
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        first = await store.renew(host("a"), LONG_US)
        assert first.identity
        database = store._database  # type: ignore[attr-defined]
        number, _, timeline = first.identity.partition("/")
        database.identity = f"{number}/{int(timeline) - 1}"  # as it was before
        await proxy.drop()
        await eventually(lambda: database.lane._pgconn is None)
        assert (await store.renew(host("a"), LONG_US)).identity == first.identity
        assert f"promoted: {first.identity}, before {number}/" in caplog.text
        await through.close()
    await direct.close()


async def test_a_reset_that_comes_together_with_an_answer_is_noticed(pg: Stores):
    """libuv tells of a socket's error once, also if the answer is still to be read."""
    direct = await pg.open()
    epoch = await owned(direct)
    with relayed(pg.url) as (relay, url):
        through = Stores("postgres", url)
        store = await through.open()
        lane = store._database.lane  # type: ignore[attr-defined]
        assert await store.append([Append(0, epoch, 1, b"one")]) == {0}
        relay.breaks.set()
        appending = asyncio.ensure_future(store.append([Append(0, epoch, 2, b"two")]))
        await asyncio.sleep(0)  # it is sent; from here on the loop stands still
        assert relay.broke.wait(10)
        assert await appending == {0}
        await eventually(lambda: lane._pgconn is None)
        assert await store.append([Append(0, epoch, 3, b"three")]) == {0}
        await through.close()
