"""From psycopg's exceptions to ours: one line each, saying what to do, without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import Error, errors as pg

from shardrt.errors import EpochFenced, StoreUnavailable

if TYPE_CHECKING:
    from shardrt.store.postgres.url import PostgresUrl

OLD_PRIMARY = "the server is a primary that was replaced"

# Servers may speak other languages; then the message stands without the remedy.
_REMEDIES = (
    ("password authentication failed", "check user and password in the store URL"),
    ("no password supplied", "give a password in the store URL, PGPASSWORD or ~/.pgpass"),
    ("no pg_hba.conf entry", "allow this user, database and address in pg_hba.conf"),
    ("does not exist", "create it, or name another in the store URL"),
    ("could not translate host name", "check the host in the store URL"),
    ("failed to resolve host", "check the host in the store URL"),
    ("refused", "check host and port in the store URL, and that PostgreSQL runs there"),
    ("No such file", "check the socket directory, and that PostgreSQL runs there"),
    ("timeout", "check host and port in the store URL, and the network in between"),
    (OLD_PRIMARY, "shut it down; if it was restored on purpose, restart the hosts"),
    ("too many", "raise max_connections, or run fewer shards per host"),
)

OUTDATED = (pg.ReadOnlySqlTransaction,)
"""What a server says that is the primary no more: only a new connection finds the one that is."""
HINDERED = (pg.QueryCanceled, pg.LockNotAvailable)
"""What goes wrong behind a connection, though it may keep one from being of use."""
LOCKED = "another connection holds its lock and does not finish; it is safe to try again"
CANCELLED = "somebody did that, or a timeout of the server; nothing has changed, it is tried again"
NO_HUB = "there is no hub in this schema yet: start a host on it first"
READ_ONLY = (
    "it is a standby, or was demoted: name the primary in the store URL, or all servers "
    "and target_session_attrs=read-write"
)
DISK_FULL = "make room on the disk of the database; nothing is lost meanwhile"
NO_PERMISSION = "grant this user CREATE on the database, or all rights in the hub's schema"


def connect_failed(error: BaseException, url: PostgresUrl) -> StoreUnavailable:
    """Say why no connection came about, and what to do."""
    if isinstance(error, HINDERED):
        return StoreUnavailable(_refusal(error, url))
    line = url.redact(_first_line(error))
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in line), "")
    return StoreUnavailable(f"cannot connect to {url.masked}: {line}{remedy and f'; {remedy}'}")


def refused(error: Error, url: PostgresUrl) -> StoreUnavailable | EpochFenced:
    """Say why the server refused a statement. It has changed nothing.

    Statements that must leave nothing behind when fenced divide by the number of fences.
    """
    if isinstance(error, pg.DivisionByZero):
        return EpochFenced("the epoch is over")
    return StoreUnavailable(_refusal(error, url))


def _refusal(error: Error, url: PostgresUrl) -> str:
    return f"{url.masked}: {url.redact(_first_line(error))}{_remedy(error.sqlstate)}"


def refused_with(sqlstate: str, message: str, url: PostgresUrl) -> StoreUnavailable:
    """Do the same for an error of which only the parts are known."""
    line = url.redact(message.partition("\n")[0])
    return StoreUnavailable(f"{url.masked}: {line}{_remedy(sqlstate)}")


def _remedy(sqlstate: str | None) -> str:
    remedy = _REMEDIES_BY_STATE.get(sqlstate or "")
    return f"; {remedy}" if remedy else ""


_REMEDIES_BY_STATE = {
    pg.DiskFull.sqlstate: DISK_FULL,
    pg.InsufficientPrivilege.sqlstate: NO_PERMISSION,
    pg.InvalidSchemaName.sqlstate: NO_HUB,
    pg.LockNotAvailable.sqlstate: LOCKED,
    pg.QueryCanceled.sqlstate: CANCELLED,
    pg.ReadOnlySqlTransaction.sqlstate: READ_ONLY,
    pg.UndefinedTable.sqlstate: NO_HUB,
}


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq lists each address it tried; the last line or two say what went wrong.
    text = lines[0] if lines else type(error).__name__
    return text.removeprefix("connection failed: ")
