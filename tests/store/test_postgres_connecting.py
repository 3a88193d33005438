"""Connections in the making, when a server is silent, does not tell, or is replaced meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import StoreUnavailable
from shardrt.store.postgres import database as databases
from tests.store.hubs import LONG_US, Stores, host
from tests.store.proxy import proxied
from tests.store.test_postgres_eras import database_of
from tests.store.test_postgres_locks import plain
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.store.base import Store


def renewed(store: Store) -> Awaitable[object]:
    return store.renew(host("a"), LONG_US)


def viewed(store: Store) -> Awaitable[object]:
    return store.view()


@pytest.mark.parametrize(
    ("request_of", "at"),
    [
        (renewed, b"pg_control_system"),
        (renewed, b"set_config"),
        (renewed, b"SET identity"),
        (renewed, b"PREPARE shardrt_append"),
        (viewed, b"pg_control_system"),
        (viewed, b"set_config"),
    ],
)
async def test_a_server_that_falls_silent_after_the_login_is_given_up(
    pg: Stores,
    monkeypatch: pytest.MonkeyPatch,
    request_of: Callable[[Store], Awaitable[object]],
    at: bytes,
):
    monkeypatch.setattr(databases, "PREPARE_S_MAX", 0.2)
    monkeypatch.setattr(databases, "POOL_S_WAIT", 0.5)
    await pg.open()
    async with proxied(pg.url) as (proxy, url):
        through = Stores("postgres", url)
        store = through.make()
        await database_of(store).start()
        proxy.hold_at = at
        with pytest.raises(StoreUnavailable, match="no answer within"):
            async with asyncio.timeout(4):
                await request_of(store)
        assert proxy.held.is_set()
        proxy.hold_at, proxy.holding = None, False

        async def works() -> bool:
            with suppress(StoreUnavailable):
                await request_of(store)
                return True
            return False

        await eventually(works, within_s=20)
        await store.close()


async def test_a_server_that_is_hindered_in_telling_its_identity_is_asked_again(pg: Stores):
    """Or nobody would fence what was claimed on the one before it."""
    store = await pg.open()
    database = database_of(store)
    database.lane.drop("to connect again")
    identity = database._queries["identity"]
    database._queries["identity"] = b"SET statement_timeout = 1; SELECT pg_sleep(60)::text"
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        await store.position(0)
    database._queries["identity"] = identity
    await store.position(0)
    assert database.lane._connection in database._identities


async def test_a_server_that_does_not_tell_its_identity_will_do(pg: Stores):
    store = await pg.open()
    database = database_of(store)
    database.lane.drop("to connect again")
    database._queries["identity"] = b"SELECT pg_no_such_function()"
    assert await store.position(0) == (0, 0)


async def test_a_server_that_is_replaced_while_the_commit_connection_is_made_is_left(pg: Stores):
    """There is no connection to drop yet when the pool learns of it."""
    store = await pg.open()
    await store.renew(host("a"), LONG_US)
    database = database_of(store)
    schema = database.url.schema
    system, _, timeline = database.identity.partition("/")
    database.lane.drop("to connect again")
    async with plain(store) as other:
        await other.execute(f"LOCK TABLE {schema}.hub IN EXCLUSIVE MODE")  # of `begin_era`
        async with plain(store, autocommit=True) as looker:
            connecting = asyncio.ensure_future(store.position(0))

            async def is_waiting() -> bool:
                cursor = await looker.execute(
                    "SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass",
                    (f"{schema}.hub",),
                )
                return await cursor.fetchone() is not None

            await eventually(is_waiting)
            database.identity = f"{system}/{int(timeline) + 1}"
            database.lane.drop("as the pool does, once it has been there")
    with pytest.raises(StoreUnavailable, match="was replaced"):
        await connecting
    assert database.lane._pgconn is None
