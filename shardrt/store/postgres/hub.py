"""Creating and checking a hub: settings of the server, migrations, fixed settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg

from shardrt.errors import HubMismatch, SchemaTooNew, StoreUnavailable, StoreUnsafe
from shardrt.store.base import FORMAT, PARTITIONS_DEFAULT, Hub
from shardrt.store.named_queries import load_migrations
from shardrt.store.postgres.database import PACKAGE, Database, Use

if TYPE_CHECKING:
    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

logger = logging.getLogger(__name__)

CREATE_ATTEMPTS_MAX = 10

_SAFE = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "remote_apply", "remote_write", "local"},
}

# Concurrent creators collide in the system catalogues; who comes second tries again.
_COLLISIONS = (
    pg.DeadlockDetected,
    pg.DuplicateObject,
    pg.DuplicateSchema,
    pg.DuplicateTable,
    pg.UniqueViolation,
)


def check_safety(url_masked: str, settings: dict[str, str]) -> None:
    """Raise `StoreUnsafe` if the server is set to lose committed data in a crash."""
    bad = [f"{name} = {value}" for name, value in settings.items() if value not in _SAFE[name]]
    if bad:
        raise StoreUnsafe(
            f"{url_masked}: with {', '.join(sorted(bad))} a crash of the database loses "
            "acknowledged data; set it to on (ALTER SYSTEM SET, then reload), or accept the risk "
            "by opening the store as unsafe"
        )


async def create_hub(database: Database, partitions: int) -> Hub:
    """Bring the schema up to date, create the hub if there is none, and return it."""
    await _migrate(database)
    async with Use(database, write=False) as connection:
        await _create(database, connection, partitions or PARTITIONS_DEFAULT)
    return await read_hub(database, partitions)


async def read_hub(database: Database, partitions: int = 0) -> Hub:
    """Return the hub; raise `HubMismatch` or `SchemaTooNew` if it is not for us."""
    ((found, written_format, hub_id),) = await database.fetch("hub")
    if written_format > FORMAT:
        raise SchemaTooNew(
            f"{database.url.masked}: records are of format {written_format}, this release knows "
            f"up to {FORMAT}; upgrade shardrt"
        )
    if partitions not in {0, found}:
        raise HubMismatch(
            f"{database.url.masked}: the hub has {found} partitions, not {partitions}; the number "
            "is fixed when a hub is created"
        )
    identity = await _identity(database)
    return Hub(partitions=found, format=written_format, identity=identity, id=hub_id)


async def _identity(database: Database) -> str:
    try:
        ((identity,),) = await database.fetch("identity")
    except StoreUnavailable:
        return ""  # not permitted, or not that kind of server
    return str(identity)


async def _migrate(database: Database) -> None:
    migrations = load_migrations(PACKAGE, f'"{database.url.schema}"')
    for attempt in range(1, CREATE_ATTEMPTS_MAX + 1):
        async with Use(database, write=False) as connection:
            try:
                await _apply(database, connection, migrations)
            except _COLLISIONS:
                if attempt == CREATE_ATTEMPTS_MAX:
                    raise
            else:
                return


async def _apply(database: Database, connection: Connection, migrations: dict[int, str]) -> None:
    """Apply what is missing, all in one transaction that only one creator is in at a time."""
    cursor = await connection.execute(
        database.query("schema_exists"), {"schema": database.url.schema}
    )
    if await cursor.fetchone() == (False,):
        await connection.execute(database.query("create_schema"))
    await connection.execute(database.query("create_migrations"))
    async with connection.transaction():
        await connection.execute(database.query("lock_migrations"))
        cursor = await connection.execute(database.query("migrations"))
        ((version,),) = await cursor.fetchall()
        latest = max(migrations)
        if version > latest:
            raise SchemaTooNew(
                f"{database.url.masked}: the schema is at version {version}, this release knows "
                f"up to {latest}; upgrade shardrt"
            )
        for number in range(version + 1, latest + 1):
            logger.info("migrate schema=%s version=%d", database.url.schema, number)
            await connection.execute(migrations[number].encode())
            await connection.execute(database.query("migrated"), {"version": number})


async def _create(database: Database, connection: Connection, partitions: int) -> None:
    async with connection.transaction():
        cursor = await connection.execute(
            database.query("create_hub"), {"partitions": partitions, "format": FORMAT}
        )
        if await cursor.fetchone():
            await connection.execute(
                database.query("create_partitions"), {"partitions": partitions}
            )
