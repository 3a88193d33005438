"""The witness: what Postgres itself saw of every write, noted by triggers of ours.

Each host connects under a name of its own, so the database can tell whose process writes. That
makes *accepted from an old owner* something that is seen and not concluded: a commit or
checkpoint of a partition by anybody but the host that the same row names as its owner; or two
processes that take turns to commit under one epoch.

Appends that were refused as a whole (the statement changed no row) are counted. Those that were
refused only in part are not, so there were at least so many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.chaos.monkey import SCHEMA

if TYPE_CHECKING:
    from collections import Counter
    from typing import LiteralString

GHOST = "ghost"
"""The name under which we try stale writes ourselves; they are not counted."""

TRIGGERS = """
CREATE TABLE {schema}.witnessed (
    number bigint GENERATED ALWAYS AS IDENTITY, partition integer, epoch bigint, commits boolean,
    owner text, writer text, process integer
);
CREATE TABLE {schema}.refused (writer text, statement text);

CREATE FUNCTION {schema}.witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.witnessed (partition, epoch, commits, owner, writer, process)
    VALUES (NEW.partition, NEW.epoch, NEW.commit_lsn <> OLD.commit_lsn, NEW.owner,
            current_setting('application_name'), pg_backend_pid());
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON {schema}.partitions FOR EACH ROW
    WHEN (NEW.commit_lsn <> OLD.commit_lsn OR NEW.checkpoint_lsn <> OLD.checkpoint_lsn)
    EXECUTE FUNCTION {schema}.witness();

CREATE FUNCTION {schema}.witness_refusal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM changed) THEN
        INSERT INTO {schema}.refused
        VALUES (current_setting('application_name'), left(current_query(), 2000));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER witness_refusal AFTER UPDATE ON {schema}.partitions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION {schema}.witness_refusal();
"""

FOREIGN = """
SELECT partition, epoch, owner, writer, count(*)
  FROM {schema}.witnessed
 WHERE owner IS NULL OR split_part(owner, '/', 1) <> writer
 GROUP BY 1, 2, 3, 4
"""

# A connection that breaks is replaced by another one, and never comes back.
TAKING_TURNS = """
WITH commits AS (
    SELECT partition, epoch, process,
           process IS DISTINCT FROM
               lag(process) OVER (PARTITION BY partition, epoch ORDER BY number) AS changes
      FROM {schema}.witnessed
     WHERE commits
)
SELECT partition, epoch, count(*) FILTER (WHERE changes), count(DISTINCT process)
  FROM commits
 GROUP BY 1, 2
HAVING count(*) FILTER (WHERE changes) > count(DISTINCT process)
"""

COUNTS = """
SELECT (SELECT count(*) FROM {schema}.witnessed WHERE commits),
       (SELECT count(*) FROM {schema}.witnessed WHERE NOT commits),
       (SELECT count(*) FROM {schema}.refused
         WHERE writer <> %(ghost)s AND statement LIKE '%%INSERT INTO%%journal%%'),
       (SELECT count(*) FROM {schema}.refused
         WHERE writer = %(ghost)s AND statement LIKE '%%INSERT INTO%%journal%%')
"""


class Witness:
    """Stands beside the hub of a server; `install` once the hub is there."""

    def __init__(self, dsn: str, schema: str = SCHEMA) -> None:
        self._dsn = dsn
        self._schema = sql.Identifier(schema)

    def install(self) -> None:
        with psycopg.connect(self._dsn) as connection:
            connection.execute(self._named(TRIGGERS))

    def faults(self) -> list[str]:
        """Return the writes that should not have been accepted."""
        with psycopg.connect(self._dsn) as connection:
            foreign = connection.execute(self._named(FOREIGN)).fetchall()
            turns = connection.execute(self._named(TAKING_TURNS)).fetchall()
        return [
            *(f"partition {p} epoch {e} of {o}: {n} writes of {w}" for p, e, o, w, n in foreign),
            *(f"partition {p} epoch {e}: {n} turns of {m} writers" for p, e, n, m in turns),
        ]

    def count(self, counts: Counter[str]) -> None:
        """Add what was seen."""
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(self._named(COUNTS), {"ghost": GHOST}).fetchone()
        assert row is not None
        names = ("commits", "checkpoints", "commits refused", "ghost's commits refused")
        counts.update(dict(zip(names, row, strict=True)))

    def _named(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(schema=self._schema)
