"""A primary that dies, a standby that takes its place, and a store that knows both."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from shardrt.errors import CommitUnknown, StoreError, StoreUnavailable
from shardrt.store.base import ERA, Append
from shardrt.store.postgres.store import PostgresStore
from shardrt.testing.postgres import PostgresServer
from shardrt.testing.postgres_standby import PostgresStandby, make_synchronous
from tests.chaos.proxy import FaultProxy
from tests.loops import in_loop
from tests.store.hubs import LONG_US, PARTITIONS, collect, host, owned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardrt.store.base import View

pytestmark = [pytest.mark.pg, pytest.mark.proc]


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresStandby]]:
    with PostgresServer(fsync=False) as primary, PostgresStandby(primary, fsync=False) as standby:
        yield primary, standby


def dsn_of(server: PostgresServer, *ports: int) -> str:
    """Return the URL that names several servers."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    hub = re.sub(r"@[^/]*/", f"@{hosts}/", server.dsn)
    return f"{hub}?target_session_attrs=read-write&connect_timeout=2"


def port_of(server: PostgresServer) -> int:
    return int(server.dsn.rpartition(":")[2].partition("/")[0])


async def renewed(store: PostgresStore, patience_s: float = 10.0) -> View:
    """Renew until it works, each time no longer than that."""
    views: list[View] = []

    async def tried() -> bool:
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(patience_s):
                views.append(await store.renew(host("a"), LONG_US))
        return bool(views)

    await eventually(tried, within_s=20)
    return views[0]


async def opened(url: str) -> PostgresStore:
    store = PostgresStore(url, unsafe=True)
    await store.open()
    await store.create(PARTITIONS)
    return store


@in_loop
async def test_what_was_claimed_before_a_fail_over_is_fenced_and_all_commits_are_there(
    pair: tuple[PostgresServer, PostgresStandby],
) -> None:
    primary, standby = pair
    make_synchronous(primary, apply=True)
    store = await opened(dsn_of(primary, port_of(primary), port_of(standby)))
    try:
        before = await store.renew(host("a"), LONG_US)
        epoch = await owned(store)
        assert await store.append([Append(0, epoch, 1, b"one")]) == {0}
        primary.kill()
        standby.promote()
        after = await renewed(store)
        system, _, timeline = before.identity.partition("/")
        assert after.identity == f"{system}/{int(timeline) + 1}"
        assert await store.append([Append(0, epoch, 2, b"two")]) == set()
        assert await store.position(0) == (2 * ERA + epoch, 1)  # as the new timeline is
        assert [record for _, record in await collect(store.read(0, 0))] == [b"one"]
        again = await owned(store)
        assert await store.append([Append(0, again, 2, b"two")]) == {0}
    finally:
        await store.close()


@in_loop
async def test_the_old_primary_is_not_believed_by_who_knows_the_new_one(
    pair: tuple[PostgresServer, PostgresStandby],
) -> None:
    primary, standby = pair
    old_way, new_way = FaultProxy(port_of(primary)), FaultProxy(port_of(standby))
    await old_way.start()
    await new_way.start()
    # The old one comes first, so that whoever can reach both ends there.
    store = await opened(dsn_of(primary, old_way.port, new_way.port))
    try:
        await store.renew(host("a"), LONG_US)
        await store.view()
        old_way.cut()
        await eventually(lambda: store._database.lane._pgconn is None)
        standby.promote()
        await renewed(store)
        old_way.heal()
        store._database.lane.drop("as when a network breaks")
        assert (await renewed(store)).identity.endswith("/2")
        await store.view()
        new_way.cut()
        await eventually(lambda: store._database.lane._pgconn is None)
        for call in (lambda: store.renew(host("a"), LONG_US), store.view):
            with pytest.raises(StoreUnavailable, match="shut it down"):
                async with asyncio.timeout(20):
                    await call()
    finally:
        await store.close()
        await old_way.close()
        await new_way.close()


@in_loop
async def test_a_commit_that_no_standby_has_is_not_believed_when_its_wait_is_cancelled(
    pair: tuple[PostgresServer, PostgresStandby],
) -> None:
    """It succeeds then, says PostgreSQL, with a warning: on the primary alone."""
    primary, standby = pair
    make_synchronous(primary)
    store = await opened(primary.dsn)
    try:
        await store.renew(host("a"), LONG_US)
        epoch = await owned(store)
        await asyncio.to_thread(standby.stop)
        append = asyncio.ensure_future(store.append([Append(0, epoch, 1, b"one")]))
        async with await psycopg.AsyncConnection.connect(primary.dsn, autocommit=True) as console:

            async def cancelled() -> bool:
                cursor = await console.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                    "WHERE wait_event = 'SyncRep' AND application_name = 'shardrt'"
                )
                return await cursor.fetchone() is not None

            await eventually(cancelled)
        with pytest.raises(CommitUnknown, match="canceling wait for synchronous replication"):
            await append
        # Reading back writes, too, and so waits until a standby has both.
        position = asyncio.ensure_future(store.position(0))
        assert not (await asyncio.wait([position], timeout=0.3))[0]
        await asyncio.to_thread(standby.start)
        assert await position == (epoch, 1)
    finally:
        await store.close()


@in_loop
async def test_a_silent_server_that_is_named_first_does_not_hide_the_next(
    pair: tuple[PostgresServer, PostgresStandby],
) -> None:
    """A machine that is gone answers nothing: to learn that takes longer than a renewal waits."""
    primary, standby = pair
    way = FaultProxy(port_of(primary))
    await way.start()
    store = await opened(dsn_of(primary, way.port, port_of(standby)))
    try:
        await store.renew(host("a"), LONG_US)
        way.hold()
        standby.promote()
        store._database.lane.drop("as when its keepalives fail")
        assert (await renewed(store, patience_s=0.3)).identity.endswith("/2")
    finally:
        await store.close()
        await way.close()
