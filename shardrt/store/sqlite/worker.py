"""A thread with an SQLite connection of its own, and a queue of work for it.

Work runs in the order in which it was submitted, each in one transaction. Cancelling a caller
does not stop its work: it runs, and the result is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from shardrt.errors import CommitUnknown, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Work = Callable[[sqlite3.Connection], Any]

T = TypeVar("T")

logger = logging.getLogger(__name__)

BUSY_S = 5.0
"""How long to wait for another process that is writing."""

JOURNAL_BYTES_KEPT = 64 * 2**20

_SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # macOS: fsync alone does not reach the disk there
    "PRAGMA checkpoint_fullfsync = ON",
    f"PRAGMA journal_size_limit = {JOURNAL_BYTES_KEPT}",
)


class Worker:
    """One thread, one connection. `begin` is the statement that opens a transaction."""

    def __init__(self, path: Path, name: str, begin: str) -> None:
        self._path = path
        self._name = name
        self._begin = begin
        self._queue: SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    async def start(self) -> None:
        """Start the thread and connect. Raises `StoreUnavailable`."""
        ready = asyncio.get_running_loop().create_future()
        self._thread = threading.Thread(
            target=self._main, args=(ready,), name=self._name, daemon=True
        )
        self._thread.start()
        try:
            await ready
        except StoreUnavailable:
            self._stopped = True
            raise

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction on the thread and return its result."""
        if self._thread is None or self._stopped:
            raise StoreUnavailable(f"{self._path}: the store is not open")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put((work, future))
        return await future

    async def stop(self) -> None:
        """Finish what was submitted, close the connection, end the thread."""
        if self._thread is None or self._stopped:
            return
        self._stopped = True
        done = asyncio.get_running_loop().create_future()
        self._queue.put((lambda _connection: None, done))
        self._queue.put(None)
        with suppress(StoreUnavailable):
            await done
        # The thread has nothing left to do but to close its connection.
        self._thread.join()

    def _main(self, ready: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            _settle(ready, StoreUnavailable(f"{self._path}: {_explain(error)}"))
            return
        _settle(ready, None)
        try:
            while entry := self._queue.get():
                work, future = entry
                _settle(future, self._transact(connection, work))
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            self._use_wal(connection)
            for setting in _SETTINGS:
                connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # While another process does the same, SQLite refuses at once instead of waiting.
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                ((mode,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise sqlite3.OperationalError("this file system does not support SQLite's WAL")
            return

    def _transact(self, connection: sqlite3.Connection, work: Work) -> object:
        """Run work in a transaction; return its result, or the exception to raise."""
        try:
            connection.execute(self._begin)
            result = work(connection)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            _roll_back(connection)
            if isinstance(error, sqlite3.Error):
                return StoreUnavailable(f"{self._path}: {_explain(error)}")
            return error
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Still in the transaction: it was refused, and rolling back undoes it for sure.
            if connection.in_transaction and _roll_back(connection):
                return StoreUnavailable(f"{self._path}: {_explain(error)}")
            return CommitUnknown(f"{self._path}: {_explain(error)}")
        return result


def _roll_back(connection: sqlite3.Connection) -> bool:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        logger.exception("cannot roll back")
        return False
    return True


def _explain(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return f"{text}; another process has been writing for more than {BUSY_S:.0f} s"
    if "unable to open" in text:
        return f"{text}; check that the path is a file in a directory that may be written to"
    if "not a database" in text:
        return f"{text}; name another file in the store URL"
    if "no such table" in text:
        return f"{text}; there is no hub in this file yet: start a host on it first"
    return text


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    with suppress(RuntimeError):  # its loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(_resolve, future, outcome)


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
