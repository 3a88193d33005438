"""Moving a hub from an SQLite file to PostgreSQL, as it is: rows, histories, journals, epochs.

No host may run on either meanwhile: the file is locked against writers, and all that is written
there is one transaction, in which it is counted before it is committed. So either the whole hub
is there, or nothing. The file is only read, but for an upgrade of its schema, and for its epochs:
a host that was frozen past its lease while it served the file finds that it owns nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import psycopg

from shardrt.errors import CommitUnknown, ConfigInvalid, HubMismatch, StoreUnavailable
from shardrt.store.clock import wall_clock_us
from shardrt.store.named_queries import load_queries
from shardrt.store.postgres.failures import connect_failed, refused
from shardrt.store.postgres.store import PostgresStore
from shardrt.store.postgres.url import parse_url as parse_postgres_url
from shardrt.store.sqlite.store import SqliteStore, parse_url as parse_sqlite_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shardrt.store.postgres.url import PostgresUrl

    Connection = psycopg.Connection[tuple[Any, ...]]

TABLES = ("checkpoints", "journal", "instances", "history")
BATCH_ROWS = 500
Sizes = dict[str, tuple[int, int]]
"""Rows and bytes by table."""


async def copy_hub(
    source_url: str,
    target_url: str,
    *,
    unsafe: bool = False,
    progress: Callable[[str, int, int], None] = lambda _table, _rows, _total: None,
) -> Sizes:
    """Copy a hub, and return what was copied.

    Args:
        source_url: ``sqlite:///…``, of a hub that no host serves.
        target_url: ``postgresql://…``, of none, or of one that was never used.
        unsafe: accept a server whose settings can lose acknowledged data.
        progress: told a table, how many more of its rows are there, and of how many.

    Raises:
        ConfigInvalid: there is no such hub, or it is being served.
        HubMismatch: the target is in use, or has another number of partitions.
        CommitUnknown: the connection broke so late that all of it may be there, or nothing.
        StoreError: one of them cannot be read or written.
    """
    path = parse_sqlite_url(source_url)
    if not path.exists():
        raise ConfigInvalid(f"there is no file {path}")
    source = SqliteStore(source_url)
    await source.open()
    try:
        partitions = len((await source.view()).partitions)
        await source.create(partitions)  # brings the schema up to date
    finally:
        await source.close()
    target = PostgresStore(target_url, unsafe=unsafe)
    await target.open()
    try:
        await target.create(partitions)
    finally:
        await target.close()
    return await asyncio.to_thread(_copy, path, target_url, progress)


def _copy(path: Path, target_url: str, progress: Callable[[str, int, int], None]) -> Sizes:
    url = parse_postgres_url(target_url)
    try:
        with _locked(path) as file, psycopg.connect(url.conninfo) as connection:
            try:
                sizes = _copy_tables(file, connection, f'"{url.schema}"', progress)
                file.execute(load_queries("shardrt.store.sqlite", file="copying.sql")["fence"])
                _commit(connection, url)
            except psycopg.Error as error:
                raise refused(error, url) from None
            file.execute("COMMIT")
            return sizes
    except psycopg.Error as error:
        raise connect_failed(error, url) from None
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {error}") from None


def _commit(connection: Connection, url: PostgresUrl) -> None:
    try:
        connection.commit()
    except psycopg.OperationalError as error:
        if not connection.closed:
            raise
        raise CommitUnknown(
            f"{url.masked}: the connection broke while the copy was committed; all of it may be "
            "there, or nothing: `shardrt db status` shows it"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Keep everybody else from writing to a hub that nobody serves, until that is committed."""
    queries = load_queries("shardrt.store.sqlite", file="copying.sql")
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        live = connection.execute(queries["live"], {"now": wall_clock_us()}).fetchall()
        if live:
            names = ", ".join(name for (name,) in live)
            raise ConfigInvalid(
                f"{path} is being served by {names}: stop it first; if it was killed, wait until "
                "its lease is over (host.lease_ttl_s)"
            )
        yield connection
    finally:
        connection.close()


def _copy_tables(
    file: sqlite3.Connection,
    connection: Connection,
    schema: str,
    progress: Callable[[str, int, int], None],
) -> Sizes:
    reading = load_queries("shardrt.store.sqlite", file="copying.sql")
    writing = {
        name: query.encode()
        for name, query in load_queries("shardrt.store.postgres", schema, "copying.sql").items()
    }
    connection.execute(writing["lock"])
    if connection.execute(writing["used"]).fetchone() == (True,):
        raise HubMismatch(
            f"the schema {schema} is in use: name another one, by ?schema=… in its URL"
        )
    sizes = _sizes(file.execute(reading["sizes"]).fetchall())
    for table in TABLES:
        progress(table, 0, sizes[table][0])
        cursor = file.execute(reading[table])
        with connection.cursor().copy(writing[table]) as copy:
            while rows := cursor.fetchmany(BATCH_ROWS):
                for row in rows:
                    copy.write_row(_converted(table, row))
                progress(table, len(rows), sizes[table][0])
    for partition, epoch, commit_lsn, checkpoint_lsn in file.execute(reading["partitions"]):
        connection.execute(
            writing["partition"],
            {
                "partition": partition,
                "epoch": epoch,
                "commit_lsn": commit_lsn,
                "checkpoint_lsn": checkpoint_lsn,
            },
        )
    copied = _sizes(connection.execute(writing["sizes"]).fetchall())
    if copied != sizes:
        raise StoreUnavailable(f"nothing was copied: read {sizes}, written {copied}")
    return sizes


def _converted(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    if table != "instances":
        return row
    *head, active, state = row
    return (*head, bool(active), state)


def _sizes(rows: list[tuple[Any, ...]]) -> Sizes:
    return {table: (count, size) for table, count, size in rows}
