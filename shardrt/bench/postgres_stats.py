"""What a run does to Postgres: commits, log bytes, and which processes are Postgres.

The figures are read through another database of the same server, so that reading them does
not count.
"""

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from shardrt.bench.errors import RunFailed
from shardrt.bench.processes import Process

ELSEWHERE = "template1"

COUNTERS = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn,
       xact_commit, xact_rollback, tup_inserted + tup_updated + tup_deleted
  FROM pg_stat_database
 WHERE datname = %s
"""
REPORT_DELAY_S = 10.5
"""A backend reports at most once per second, and what was left over when it has been idle for
ten seconds."""


@dataclass(frozen=True)
class Counters:
    """Totals since the server's start."""

    wal_bytes: int
    commits: int
    rollbacks: int
    rows: int
    """Rows inserted, updated or deleted."""

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(
            self.wal_bytes - other.wal_bytes,
            self.commits - other.commits,
            self.rollbacks - other.rollbacks,
            self.rows - other.rows,
        )


class PostgresStats:
    """Reads the counters of the database in a store URL. Use as a context manager."""

    def __init__(self, store_url: str) -> None:
        dsn, self.schema = split_schema(store_url)
        self._dsn = dsn
        self.database = str(conninfo_to_dict(dsn).get("dbname") or "postgres")

    def __enter__(self) -> Self:
        try:
            self._connection = psycopg.connect(self._dsn, dbname=ELSEWHERE, autocommit=True)
        except psycopg.OperationalError:
            self._connection = self._connect_directly()
        return self

    def _connect_directly(self) -> psycopg.Connection:
        try:
            return psycopg.connect(self._dsn, autocommit=True)
        except psycopg.OperationalError as error:
            raise RunFailed(f"cannot read what Postgres counts: {error}") from error

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def read(self) -> Counters:
        self._connection.execute("SELECT pg_stat_clear_snapshot()")
        row = self._connection.execute(COUNTERS, [self.database]).fetchone()
        assert row is not None, "the database that we use is there"
        return Counters(*map(int, row))

    def facts(self) -> dict[str, Any]:
        """Return the version and the settings that decide about speed and safety."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        return {name: self._show(name) for name in names}

    def _show(self, name: str) -> str:
        row = self._connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        return str(row[0])

    def roles(self, seen: dict[int, Process]) -> dict[int, str]:
        """Find the server's processes, if it runs on this machine (a `metering.FindRoles`)."""
        rows = self._connection.execute(
            "SELECT pid, backend_type = 'client backend' FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid()"
        )
        return {
            pid: "postgres backends" if is_backend else "postgres background"
            for pid, is_backend in rows
            if pid in seen and "postgres" in seen[pid].command
        }


def split_schema(store_url: str) -> tuple[str, str | None]:
    """Return a store URL as a DSN for Postgres, and its `schema` parameter."""
    parts = urlsplit(store_url)
    query = dict(parse_qsl(parts.query))
    schema = query.pop("schema", None)
    return urlunsplit(parts._replace(query=urlencode(query))), schema


def drop_schema(store_url: str) -> None:
    dsn, schema = split_schema(store_url)
    assert schema is not None, "only what this run created is dropped"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
        )
