"""A standby of a `PostgresServer`, to be promoted when that one dies.

    with PostgresServer() as primary, PostgresStandby(primary) as standby:
        make_synchronous(primary)
        ...
        primary.kill()
        standby.promote()

User and password are those of the primary; the port is its own.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardrt.testing.postgres import (
    INITDB_TIMEOUT_S,
    LOG_TAIL_CHARS,
    POLL_S,
    START_TIMEOUT_S,
    PostgresServer,
    server_environment,
)
from shardrt.testing.postgres_binaries import PostgresUnavailable
from shardrt.testing.postgres_guard import as_account

if TYPE_CHECKING:
    import os
    from pathlib import Path


class PostgresStandby(PostgresServer):
    """A server that follows another one, which must be running when this one first starts.

    Args:
        primary: whom it follows.
        port: where it finds the primary's log; None: at the primary itself. A proxy there
            can hold the log up.
        data_dir: as for `PostgresServer`.
        fsync: as for `PostgresServer`.
        settings: as for `PostgresServer`.
    """

    def __init__(
        self,
        primary: PostgresServer,
        *,
        port: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        fsync: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        self._primary_dsn = primary.dsn
        source: dict[str, Any] = {**conninfo_to_dict(primary.dsn)}
        source |= {"port": str(port)} if port else {}
        conninfo = make_conninfo(**source, application_name="standby")
        follow = {"primary_conninfo": conninfo, "hot_standby": "on"}
        super().__init__(data_dir, fsync=fsync, settings=follow | (settings or {}))

    def promote(self) -> None:
        """Make it a primary, with what it has received; return once it takes writes.

        Raises:
            PostgresUnavailable: it did not become one.
        """
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            if connection.execute("SELECT pg_promote()").fetchone() != (True,):
                raise PostgresUnavailable(f"it was not promoted:\n{self._log_tail()}")

    def wait_until_caught_up(self) -> None:
        """Wait until it has applied all that its primary has written so far.

        Raises:
            PostgresUnavailable: that took too long.
        """
        with psycopg.connect(self._primary_dsn) as primary:
            row = primary.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        with psycopg.connect(self.dsn, autocommit=True) as standby:
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while standby.execute(query, row).fetchone() != (True,):
                if time.monotonic() > deadline_s:
                    raise PostgresUnavailable("the standby does not follow")
                time.sleep(POLL_S)

    def _create_cluster(self, initdb: Path, password_file: Path) -> None:
        source: dict[str, Any] = {**conninfo_to_dict(self._primary_dsn)}
        self._password = source.pop("password")
        password_file.write_text(self._password)
        command = [
            *(str(initdb.with_name("pg_basebackup")), "--pgdata", str(self._cluster)),
            *("--dbname", make_conninfo(**source), "--checkpoint", "fast"),
            *("--wal-method", "stream", "--no-sync"),
        ]
        try:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=INITDB_TIMEOUT_S,
                cwd="/",
                env=server_environment() | {"PGPASSWORD": self._password},
                **as_account(self._account),
            )
        except FileNotFoundError:
            raise PostgresUnavailable(f"a standby needs {command[0]}") from None
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace")
            raise PostgresUnavailable(f"pg_basebackup failed:\n{said[-LOG_TAIL_CHARS:]}")
        (self._cluster / "standby.signal").touch()
        self._hand_over(self._cluster / "standby.signal")


def make_synchronous(primary: PostgresServer, *, apply: bool = False) -> None:
    """Let commits of a running primary wait for its standby, which must follow already.

    Args:
        primary: who waits.
        apply: also until the standby has applied them (`synchronous_commit = remote_apply`).
    """
    with psycopg.connect(primary.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        if apply:
            connection.execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        connection.execute("SELECT pg_reload_conf()")
