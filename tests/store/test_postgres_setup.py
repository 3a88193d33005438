"""PostgreSQL: what can be wrong with URL, server, rights and schema; and what is never shown."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from shardrt.errors import (
    ConfigInvalid,
    SchemaTooNew,
    StoreError,
    StoreUnavailable,
    StoreUnsafe,
)
from shardrt.store.base import Append
from shardrt.store.factory import make_store
from shardrt.store.postgres.store import PostgresStore
from shardrt.store.postgres.url import parse_url
from shardrt.testing.postgres import with_parameters
from tests.store.hubs import LONG_US, appended, collect, host, owned
from tests.store.test_postgres_locks import plain

if TYPE_CHECKING:
    from tests.store.hubs import Stores

SECRET = "s3cret/@ü"


def changed(url: str, *, user: str = "", password: str = "", database: str = "") -> str:
    parts = urlsplit(url)
    user_info = f"{user or parts.username}:{password or parts.password}"
    netloc = f"{user_info}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=netloc, path=f"/{database}" if database else parts.path).geturl()


async def failure(url: str, *, unsafe: bool = True) -> StoreError:
    """Return what opening and creating raises, having checked that it is fit to be shown."""
    store = make_store(url, unsafe=unsafe)

    async def create() -> None:
        await store.open()
        await store.create(4)

    try:
        with pytest.raises(StoreError) as caught:
            await create()
    finally:
        await store.close()
    shown = "".join(traceback.format_exception(caught.value))
    password = urlsplit(url).password or "no password"
    for secret in (SECRET, quote(SECRET, safe=""), password):
        assert secret not in shown + repr(caught.value) + store.url_masked
    assert "\n" not in str(caught.value)
    return caught.value


async def test_a_server_that_is_not_there(pg: Stores):
    error = await failure(f"postgresql://me:{quote(SECRET, safe='')}@127.0.0.1:1/db")
    assert isinstance(error, StoreUnavailable)
    assert "postgresql://me:***@127.0.0.1:1/db" in str(error)
    assert "that PostgreSQL runs there" in str(error)


async def test_a_host_that_does_not_exist(pg: Stores):
    error = await failure(f"postgresql://me:{quote(SECRET, safe='')}@no-such-host.invalid/db")
    assert isinstance(error, StoreUnavailable)
    assert "check the host" in str(error)


async def test_a_database_that_does_not_exist(pg: Stores):
    error = await failure(changed(pg.url, database="absent"))
    assert isinstance(error, StoreUnavailable)
    assert 'database "absent" does not exist; create it' in str(error)


async def test_a_wrong_password(pg: Stores):
    await with_role(pg, "CREATE ROLE {role} LOGIN PASSWORD 'r1ght'")
    error = await failure(changed(pg.url, user=role_of(pg), password=quote(SECRET, safe="")))
    assert isinstance(error, StoreUnavailable)
    assert "check user and password" in str(error)


async def test_a_user_without_rights(pg: Stores):
    await with_role(pg, "CREATE ROLE {role} LOGIN PASSWORD 'r1ght'")
    error = await failure(changed(pg.url, user=role_of(pg), password="r1ght"))
    assert isinstance(error, StoreUnavailable)
    assert "permission denied" in str(error)
    assert "grant this user CREATE" in str(error)


async def test_a_user_with_rights_on_an_existing_schema_only(pg: Stores):
    schema = parse_url(pg.url).schema
    await with_role(
        pg,
        "CREATE ROLE {role} LOGIN PASSWORD 'r1ght'; "
        f'CREATE SCHEMA "{schema}" AUTHORIZATION {{role}}',
    )
    store = PostgresStore(changed(pg.url, user=role_of(pg), password="r1ght"), unsafe=True)
    await store.open()
    hub = await store.create(4)
    assert hub.partitions == 4
    await store.close()


def role_of(pg: Stores) -> str:
    return f"role_of_{parse_url(pg.url).schema}"


async def with_role(pg: Stores, script: str) -> None:
    conninfo = parse_url(pg.url).conninfo
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
        await admin.execute(script.format(role=role_of(pg)).encode())


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}:x@host:port/db",
        f"postgresql://me:{SECRET}@host/db?connect_timeout",
        "postgresql://me:s3cret@[host/db",
        "postgresql://me:123/s3cret@host/db",
        f"postgresql://host/db?password={SECRET}&nonsense=1",
    ],
)
def test_a_malformed_url_shows_nothing_of_its_secrets(url: str):
    with pytest.raises(ConfigInvalid) as caught:
        make_store(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_url_may_name_several_servers():
    url = "postgresql://me:pw@a:1,b:2/db?target_session_attrs=read-write"
    servers = [conninfo_to_dict(each) for each in parse_url(url).conninfos]
    assert [(each["host"], each["port"]) for each in servers] == [("a", "1"), ("b", "2")]
    assert {each["target_session_attrs"] for each in servers} == {"read-write"}
    for one in (
        "postgresql://a/db",
        "postgresql:///db",
        "postgresql://a,b/db?hostaddr=1.1.1.1,::2",
    ):
        assert len(parse_url(one).conninfos) == 1
    assert len(parse_url("postgresql://a,b:5/db").conninfos) == 2
    assert len(parse_url("postgresql:///db?host=/run/a,/run/b&port=5").conninfos) == 2


def test_a_masked_url_says_where_but_not_how():
    url = parse_url(f"postgresql://me:{quote(SECRET, safe='')}@a:1,b:2/db?schema=x&sslmode=require")
    assert url.masked == "postgresql://me:***@a:1,b:2/db?schema=x&sslmode=require"
    assert parse_url("postgresql:///db?host=/run/pg&password=abc").masked == (
        "postgresql:///db?host=/run/pg&password=***"
    )
    assert url.redact(f"no {SECRET}, no {quote(SECRET, safe='')}") == "no ***, no ***"
    assert parse_url("postgresql://me:p@a/db").redact("port p at a") == "port *** at a"
    assert "sslmode=require" in url.conninfo
    assert "keepalives_idle=5" in url.conninfo


async def test_settings_that_lose_commits_are_refused(pg: Stores):
    url = with_parameters(pg.url, options="-c synchronous_commit=off")
    error = await failure(url, unsafe=False)
    assert isinstance(error, StoreUnsafe)
    assert "synchronous_commit = off" in str(error)
    assert "set it to on" in str(error)
    store = make_store(url, unsafe=True)
    await store.open()
    await store.close()


async def test_a_schema_of_a_newer_release_is_refused(pg: Stores):
    store = await pg.open()
    async with plain(store, autocommit=True) as connection:
        await connection.execute("INSERT INTO migrations (version) VALUES (99)")
    error = await failure(pg.url)
    assert isinstance(error, SchemaTooNew)
    assert "version 99" in str(error)


async def test_records_of_a_newer_release_are_refused(pg: Stores):
    store = await pg.open()
    async with plain(store, autocommit=True) as connection:
        await connection.execute("UPDATE hub SET format = 99")
    assert isinstance(await failure(pg.url), SchemaTooNew)


async def test_a_migration_that_fails_leaves_nothing(pg: Stores, monkeypatch: pytest.MonkeyPatch):
    broken = {1: 'CREATE TABLE "{schema}".hub (x integer); SELECT 1/0'}
    schema = parse_url(pg.url).schema
    broken = {1: broken[1].replace("{schema}", schema)}
    monkeypatch.setattr("shardrt.store.postgres.hub.load_migrations", lambda *_: broken)
    await failure(pg.url)
    monkeypatch.undo()
    store = await pg.open()
    assert len((await store.view()).partitions) == 4


async def test_a_hub_of_before_hubs_had_ids_gets_one(pg: Stores):
    store = await pg.open()
    async with plain(store, autocommit=True) as connection:
        await connection.execute("ALTER TABLE hub DROP COLUMN id")
        await connection.execute("DELETE FROM migrations WHERE version = 4")
    hub = await store.create(4)
    assert hub.id
    assert await store.create(4) == hub


async def test_a_hub_that_was_never_created_says_so(pg: Stores):
    store = await pg.bare()
    for call in (
        store.view,
        lambda: store.append([Append(0, 1, 1, b"")]),
        lambda: store.renew(host(), LONG_US),
    ):
        with pytest.raises(StoreUnavailable, match="there is no hub in this schema yet"):
            await call()


async def test_two_hubs_share_a_database(pg: Stores):
    store = await pg.open()
    await appended(store, await owned(store), b"one")
    other_url = with_parameters(pg.url, schema=f"{parse_url(pg.url).schema}_other")
    other = PostgresStore(other_url, unsafe=True)
    await other.open()
    try:
        assert (await other.create(2)).id != (await store.create(4)).id
        assert (await other.view()).partitions[0].commit_lsn == 0
    finally:
        async with plain(other, autocommit=True) as connection:
            schema = parse_url(other_url).schema
            await connection.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
        await other.close()


async def test_the_hub_names_the_server_it_is_on(pg: Stores):
    store = await pg.bare()
    hub = await store.create(4)
    system, _, timeline = hub.identity.partition("/")
    assert system.isdigit()
    assert timeline.isdigit()


def test_it_needs_two_connections(hub_dsn: str):
    with pytest.raises(ConfigInvalid, match="at least 2"):
        make_store(hub_dsn, connections=1)


def test_it_runs_on_the_plain_event_loop_too(hub_dsn: str):
    async def main() -> list[tuple[int, bytes]]:
        store = make_store(hub_dsn, unsafe=True)
        await store.open()
        await store.create(4)
        await appended(store, await owned(store), b"one", b"x" * 5_000_000)
        found = await collect(store.read(0, 0))
        await store.close()
        return found

    assert asyncio.run(main()) == [(1, b"one"), (2, b"x" * 5_000_000)]
