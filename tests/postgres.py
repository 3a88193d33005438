"""The PostgreSQL server that the tests share, and a fresh schema for each of them.

`SHARDRT_TEST_DSN` names a server to use; otherwise one is started for the session, without
fsync. So a store on it must be told to accept unsafe settings (`unsafe=True`).
"""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from shardrt.testing.postgres import PostgresServer, with_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@contextmanager
def server_dsn() -> Iterator[str]:
    """Yield the DSN of a running server."""
    if given := os.environ.get("SHARDRT_TEST_DSN"):
        yield given
        return
    with PostgresServer(fsync=False) as server:
        yield server.dsn


@contextmanager
def fresh_schema(dsn: str) -> Iterator[str]:
    """Yield the DSN of a hub whose schema does not exist yet; drop the schema afterwards."""
    schema = f"test_{os.getpid()}_{next(_numbers)}"
    try:
        yield with_parameters(dsn, schema=schema)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
            connection.execute(drop.format(sql.Identifier(schema)))
