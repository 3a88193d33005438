"""Creating and checking a hub, within the transaction of the caller."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from shardrt.errors import HubMismatch, SchemaTooNew
from shardrt.store.base import FORMAT, PARTITIONS_DEFAULT, Hub
from shardrt.store.named_queries import load_migrations
from shardrt.store.sqlite.statements import PACKAGE, SQL

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)


def create_hub(connection: sqlite3.Connection, partitions: int, name: str) -> Hub:
    """Bring the schema up to date, create the hub if there is none, and return it."""
    _migrate(connection, name)
    rows = connection.execute(SQL["hub"]).fetchall()
    if not rows:
        hub = {"partitions": partitions or PARTITIONS_DEFAULT, "format": FORMAT}
        rows = connection.execute(SQL["create_hub"], hub).fetchall()
        numbers = [{"partition": number} for number in range(rows[0][0])]
        connection.executemany(SQL["create_partition"], numbers)
    ((found, written_format, hub_id),) = rows
    if written_format > FORMAT:
        raise SchemaTooNew(
            f"{name}: records are of format {written_format}, this release knows up to {FORMAT}; "
            "upgrade shardrt"
        )
    if partitions not in {0, found}:
        raise HubMismatch(
            f"{name}: the hub has {found} partitions, not {partitions}; the number is fixed when "
            "a hub is created"
        )
    return Hub(partitions=found, format=written_format, identity="", id=hub_id)


def _migrate(connection: sqlite3.Connection, name: str) -> None:
    migrations = load_migrations(PACKAGE)
    connection.execute(SQL["create_migrations"])
    ((version,),) = connection.execute(SQL["migrations"]).fetchall()
    latest = max(migrations)
    if version > latest:
        raise SchemaTooNew(
            f"{name}: the schema is at version {version}, this release knows up to {latest}; "
            "upgrade shardrt"
        )
    for number in range(version + 1, latest + 1):
        logger.info("migrate file=%s version=%d", name, number)
        for statement in _statements(migrations[number]):
            connection.execute(statement)
        connection.execute(SQL["migrated"], {"version": number})


def _statements(script: str) -> Iterator[str]:
    """Split a script, since `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
