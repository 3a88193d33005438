"""What a hub takes in its store: rows and bytes."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from shardrt.store.postgres.url import parse_url

TABLES = ("instances", "history", "journal")

SIZES = """
SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relkind = 'r'
"""


def footprint(store_url: str) -> dict[str, int]:
    """Return rows by table, and bytes with indexes; nothing if the store cannot tell."""
    if store_url.startswith("postgres"):
        return _postgres(store_url)
    file = Path(store_url.removeprefix("sqlite:///"))
    # A host elsewhere may have its file elsewhere.
    if store_url.startswith("sqlite:///") and file.exists():
        return _sqlite(file)
    return {}


def _postgres(store_url: str) -> dict[str, int]:
    url = parse_url(store_url)
    with psycopg.connect(url.conninfo, autocommit=True) as connection:
        found = {}
        for table in TABLES:
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(url.schema, table))
            found[f"{table}_rows"] = _number(connection.execute(count))
        found["bytes"] = _number(connection.execute(SIZES, [url.schema]))
    return found


def _number(cursor: psycopg.Cursor[tuple[int]]) -> int:
    row = cursor.fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0])


def _sqlite(file: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
        found = {
            f"{table}_rows": int(
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            )
            for table in TABLES
        }
    log = file.with_name(f"{file.name}-wal")
    found["bytes"] = file.stat().st_size + (log.stat().st_size if log.exists() else 0)
    return found
