"""PostgreSQL: connections that break, before, during and after a commit."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import CommitUnknown, StoreUnavailable
from shardrt.store.base import Append
from shardrt.store.postgres.database import _is_alive
from tests.store.hubs import (
    LONG_US,
    Stores,
    appended,
    checkpoint,
    collect,
    host,
    keys,
    owned,
    row,
    taken_over,
)
from tests.store.proxy import COMMAND_COMPLETE, READY_FOR_QUERY, proxied
from tests.store.test_postgres_locks import plain, waiting
from tests.waiting import eventually

if TYPE_CHECKING:
    from shardrt.store.base import Store
    from tests.store.test_postgres_locks import Connection


async def kill(looker: Connection, *, state: str) -> None:
    await looker.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'shardrt' AND pid <> pg_backend_pid() AND state = %s",
        (state,),
    )


@pytest.mark.parametrize("lost", [COMMAND_COMPLETE, READY_FOR_QUERY])
async def test_an_append_whose_answer_is_lost_is_unknown_until_looked_up(pg: Stores, lost: bytes):
    direct = await pg.open()
    epoch = await owned(direct)
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        await appended(store, epoch, b"one")
        proxy.cut_before = lost
        with pytest.raises(CommitUnknown):
            await store.append([Append(0, epoch, 2, b"two")])
        assert await store.position(0) == (epoch, 2)
        assert await collect(store.read(0, 0)) == [(1, b"one"), (2, b"two")]
        assert await appended(store, epoch, b"three") == 3
        await through.close()


async def test_a_lost_answer_to_what_may_be_repeated_is_no_unknown_commit(pg: Stores):
    await pg.open()
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        await store.position(0)
        for call in (
            lambda: store.position(0),
            lambda: store.renew(host(), LONG_US),
            lambda: store.leave(host()),
        ):
            await store.position(0)
            proxy.cut_before = COMMAND_COMPLETE
            with pytest.raises(StoreUnavailable):
                await call()
            await call()
        await through.close()


async def test_an_append_killed_on_the_server_is_unknown_until_looked_up(pg: Stores):
    store = await pg.open()
    epoch = await owned(store)
    async with plain(store) as blocker, plain(store, autocommit=True) as looker:
        await blocker.execute("SELECT FROM partitions WHERE partition = 0 FOR UPDATE")
        append = asyncio.ensure_future(store.append([Append(0, epoch, 1, b"one")]))
        await eventually(lambda: waiting(looker))
        await kill(looker, state="active")
        with pytest.raises(CommitUnknown):
            await append
        await blocker.rollback()
    assert await store.position(0) == (epoch, 0)
    assert await appended(store, epoch, b"other") == 1


async def test_an_append_still_in_a_buffer_cannot_land_after_we_looked(pg: Stores):
    """The proxy keeps the statement, and delivers it when its sender has long given up."""
    direct = await pg.open()
    epoch = await owned(direct)
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        await appended(store, epoch, b"one")
        proxy.holding = True
        append = asyncio.ensure_future(store.append([Append(0, epoch, 2, b"stale")]))
        await proxy.held.wait()
        lane = store._database.lane  # type: ignore[attr-defined]
        pid = lane._connection.info.backend_pid
        lane._lose("given up")
        with pytest.raises(CommitUnknown):
            await append
        proxy.holding = False
        assert await store.position(0) == (epoch, 1)
        proxy.let_go.set()
        async with plain(direct, autocommit=True) as looker:
            await eventually(lambda: ended(looker, pid))
        assert await store.position(0) == (epoch, 1)
        assert await appended(store, epoch, b"fresh") == 2
        await through.close()
    assert await collect(direct.read(0, 0)) == [(1, b"one"), (2, b"fresh")]


async def ended(looker: Connection, pid: int) -> bool:
    cursor = await looker.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,))
    return await cursor.fetchone() == (0,)


async def test_a_barrier_does_not_outlive_its_epoch(pg: Stores):
    """The next owner's connection may be older than the barrier of the last one."""
    next_owner = await pg.open()
    await next_owner.position(0)  # connects
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        epoch = await owned(store)
        await appended(store, epoch, b"one")
        proxy.cut_before = READY_FOR_QUERY
        with pytest.raises(CommitUnknown):
            await store.append([Append(0, epoch, 2, b"two")])
        await store.position(0)
        newer = await taken_over(next_owner)
        assert await appended(next_owner, newer, b"theirs") == 3
        # Looking again, under an epoch that is over, hinders nobody either.
        await store.position(0)
        assert await appended(next_owner, newer, b"theirs") == 4
        await through.close()


async def test_looking_after_the_next_owner_has_begun_does_not_hinder_it(pg: Stores):
    next_owner = await pg.open()
    await next_owner.position(0)  # connects
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        epoch = await owned(store)
        await appended(store, epoch, b"one")
        proxy.cut_before = READY_FOR_QUERY
        with pytest.raises(CommitUnknown):
            await store.append([Append(0, epoch, 2, b"two")])
        newer = await taken_over(next_owner)
        assert await store.position(0) == (newer, 2)
        assert await appended(next_owner, newer, b"theirs") == 3
        await through.close()


async def test_an_idle_connection_that_breaks_is_just_replaced(
    pg: Stores, caplog: pytest.LogCaptureFixture
):
    store = await pg.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    lane = store._database.lane  # type: ignore[attr-defined]
    async with plain(store, autocommit=True) as looker:
        with caplog.at_level(logging.WARNING):
            await kill(looker, state="idle")
            await eventually(lambda: lane._pgconn is None)
    assert await store.append([Append(0, epoch, 2, b"two")]) == {0}
    (line,) = [r.getMessage() for r in caplog.records if "commit connection" in r.getMessage()]
    assert "\n" not in line


async def test_a_write_of_the_pool_whose_answer_is_lost_is_unknown(pg: Stores):
    direct = await pg.open()
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        epoch = await owned(store)
        await appended(store, epoch, b"one")
        one = checkpoint(epoch, 1, upserts=[row()])
        proxy.cut_before = COMMAND_COMPLETE
        with pytest.raises(CommitUnknown):
            await store.checkpoint(one)
        await store.checkpoint(one)
        proxy.cut_before = COMMAND_COMPLETE
        with pytest.raises(CommitUnknown):
            await store.claim(0, epoch, "host/1")
        assert (await store.view()).partitions[0].epoch == epoch + 1
        proxy.cut_before = COMMAND_COMPLETE
        with pytest.raises(StoreUnavailable):
            await store.view()
        assert await store.load(keys(0, ["a"])) == [row()]
        await through.close()
    assert (await direct.head(0, epoch + 1)).checkpoint_lsn == 1


async def test_a_server_that_is_gone_is_unavailable_and_comes_back(pg: Stores):
    direct = await pg.open()
    epoch = await owned(direct)
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        await appended(store, epoch, b"one")
        target, proxy._target = proxy._target, ("127.0.0.1", 1)
        await proxy.drop()
        lane = store._database.lane  # type: ignore[attr-defined]
        await eventually(lambda: lane._pgconn is None)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="cannot connect"):
                await store.append([Append(0, epoch, 2, b"two")])
        proxy._target = target
        assert await store.append([Append(0, epoch, 2, b"two")]) == {0}
        await through.close()


async def test_a_server_that_does_not_answer_is_given_up(
    pg: Stores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shardrt.store.postgres.lane.ANSWER_S_MAX", 0.05)
    direct = await pg.open()
    epoch = await owned(direct)
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        await appended(store, epoch, b"one")
        proxy.holding = True
        with pytest.raises(CommitUnknown, match="no answer within"):
            await store.append([Append(0, epoch, 2, b"two")])
        await through.close()


async def test_a_pool_connection_that_broke_while_idle_is_just_replaced(pg: Stores):
    store = await pg.open()
    pool_connection = await store._database.take()  # type: ignore[attr-defined]
    pid = pool_connection.info.backend_pid
    await store._database.give(pool_connection)  # type: ignore[attr-defined]
    async with plain(store, autocommit=True) as looker:
        await looker.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await eventually(lambda: hung_up(pool_connection))
    assert await store.claim(0, 0, "a/1") == 1


async def hung_up(connection: Connection) -> bool:
    # A server process is no longer listed a moment before its end of the socket closes.
    return not _is_alive(connection)


async def test_the_pool_says_why_it_has_no_connection_and_recovers(
    pg: Stores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shardrt.store.postgres.database.POOL_S_WAIT", 0.3)
    await pg.open()
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = await through.open()
        target, proxy._target = proxy._target, ("127.0.0.1", 1)
        await proxy.drop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"server closed|refused"):
                await store.view()
        proxy._target = target
        await eventually(lambda: answers(store))
        await through.close()


async def answers(store: Store) -> bool:
    try:
        await store.view()
    except StoreUnavailable:
        return False
    return True
