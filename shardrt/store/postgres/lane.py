"""The commit connection: prepared statements, one at a time, at the least CPU per call.

Group commits follow each other back to back, so this path goes around psycopg's cursors and
straight to libpq (`psycopg.pq`): a call is one `send_query_prepared`, one future and one
callback of a reader that stays registered. That also notices a dying server while idle, which
turns what would be an unknown outcome later into a plain reconnect now.

Law: an answer is handed out only when the server has reported itself idle again, i.e. after
the commit; a connection that breaks before that makes the outcome unknown. A cancelled caller
leaves its statement running; the next one waits until it is decided.
"""

from __future__ import annotations

import asyncio
import logging
import random
import select
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, TransactionStatus

from shardrt.errors import CommitUnknown, StoreError, StoreUnavailable
from shardrt.store.postgres.failures import OUTDATED, connect_failed, refused, refused_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from shardrt.store.postgres.url import PostgresUrl

    Connection = psycopg.AsyncConnection[tuple[object, ...]]
    Connect = Callable[[], Awaitable[tuple[Connection, int]]]

logger = logging.getLogger(__name__)

ANSWER_S_MAX = 40.0
"""Longer than the server's own statement timeout: then it, or the way to it, is frozen."""

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 2.0

_BINARY = [Format.BINARY] * 8
_SUCCESS = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})


class Lane:
    """One connection, connected when needed, that runs the statements prepared on it."""

    birth = 0
    """Database time at which the current connection was opened; grows with each."""

    def __init__(self, url: PostgresUrl, connect: Connect) -> None:
        self._url = url
        self._connect = connect
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._pgconn: PGconn | None = None
        self._socket = -1
        self._broken = select.poll()
        """Tells of errors of that socket alone."""
        # The statement in flight: its caller, what has arrived so far, and when to give up.
        self._waiter: asyncio.Future[PGresult] | None = None
        self._results: list[PGresult] = []
        self._deadline = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._backoff_s = 0.0
        # A moment and not a pause: callers may have less patience than that, one after the other.
        self._connect_from_s = 0.0
        self._closed = True
        self._opening: asyncio.Task[StoreError | None] | None = None
        self._warning = ""
        """What the server has warned of since the statement in flight was sent."""

    async def run(
        self,
        statement: bytes,
        arguments: Callable[[], Sequence[bytes | None]],
    ) -> PGresult:
        """Run a prepared statement; `arguments` is called once there is a connection.

        Raises `StoreUnavailable` if it had no effect, `CommitUnknown` if that is open.
        """
        await self._turn.acquire()
        try:
            if self._pgconn is None:
                await self._open()
            waiter = self._send(statement, arguments())
        except BaseException:
            self._turn.release()
            raise
        # From here on `_settle` gives the turn back, also if we are cancelled.
        return await waiter

    def start(self) -> None:
        """Allow connecting."""
        self._closed = False

    def close(self) -> None:
        """Close the connection; a call in flight gets `CommitUnknown`."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self._lose("closed")

    def _is_closed(self) -> bool:
        return self._closed

    def drop(self, reason: str) -> None:
        """Lose the connection, if there is one; the next call makes another."""
        self._lose(reason)

    async def _open(self) -> None:
        """Connect. A caller who is cancelled leaves the attempt to the next one.

        Of several servers the first may be so dead that it takes all the patience of a caller
        to find out.
        """
        if self._opening is None:
            self._opening = asyncio.create_task(self._try_to_open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        await asyncio.wait([opening])
        if opening.cancelled():  # by `close`, perhaps before it began
            raise StoreUnavailable(f"{self._url.masked}: the store is closed")
        failure = opening.result()
        if failure is not None:
            raise failure

    def _opened(self, _: object) -> None:
        self._opening = None

    async def _try_to_open(self) -> StoreError | None:
        try:
            await self._connect_once()
        except StoreError as error:
            return error
        return None

    async def _connect_once(self) -> None:
        if self._is_closed():
            raise StoreUnavailable(f"{self._url.masked}: the store is not open")
        loop = asyncio.get_running_loop()
        if self._connect_from_s > loop.time():
            await asyncio.sleep(self._connect_from_s - loop.time())
        try:
            connection, birth = await self._connect()
        except psycopg.Error as error:
            self._backoff_s = min(BACKOFF_S_MAX, max(BACKOFF_S_MIN, self._backoff_s * 2))
            # Shards that lost their server together must not come back together.
            pause_s = self._backoff_s * random.uniform(0.5, 1.0)  # noqa: S311
            self._connect_from_s = loop.time() + pause_s
            connecting = isinstance(error, psycopg.OperationalError)
            raise (connect_failed if connecting else refused)(error, self._url) from None
        if self._is_closed():  # meanwhile
            await connection.close()
            raise StoreUnavailable(f"{self._url.masked}: the store is not open")
        self._backoff_s = 0.0
        self.birth = max(self.birth + 1, birth)
        self._connection = connection
        self._pgconn = connection.pgconn
        self._socket = connection.pgconn.socket
        self._broken = select.poll()
        self._broken.register(self._socket, 0)
        connection.add_notice_handler(self._noticed)
        loop.add_reader(self._socket, self._readable)

    def _send(
        self, statement: bytes, arguments: Sequence[bytes | None]
    ) -> asyncio.Future[PGresult]:
        pgconn = self._pgconn
        assert pgconn is not None
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + ANSWER_S_MAX
        self._warning = ""
        waiter = self._waiter = loop.create_future()
        try:
            formats = _BINARY[: len(arguments)]
            pgconn.send_query_prepared(statement, arguments, formats, Format.BINARY)
            if pgconn.flush():
                loop.add_writer(self._socket, self._writable)
        except psycopg.Error as error:
            self._lose(str(error))
        if self._watchdog is None:
            self._watchdog = loop.call_later(ANSWER_S_MAX, self._watch)
        return waiter

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        # Nothing that we do is worth a warning, but for this: whoever cancels a commit that waits
        # for a standby makes it succeed, on this server alone. Reading back waits again.
        if notice.severity_nonlocalized == "WARNING":
            self._warning = notice.message_primary or "unknown warning"

    def _writable(self) -> None:
        pgconn = self._pgconn
        assert pgconn is not None
        try:
            if not pgconn.flush():
                asyncio.get_running_loop().remove_writer(self._socket)
        except psycopg.Error as error:
            self._lose(str(error))

    def _readable(self) -> None:
        self._take_in()
        # An error is told once, with what has come before it: libuv then watches no longer. Nobody
        # would hear of it after the answer that came together with the reset.
        if self._pgconn is not None and self._broken.poll(0):
            asyncio.get_running_loop().call_soon(self._readable)

    def _take_in(self) -> None:
        pgconn = self._pgconn
        if pgconn is None:
            return  # lost meanwhile
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    break
                self._results.append(result)
            else:
                return
        except psycopg.Error as error:
            self._lose(str(error))
            return
        # No result and not busy: the server is idle, or gone.
        if pgconn.status != ConnStatus.OK:
            self._lose("the server closed the connection")
        elif self._waiter and pgconn.transaction_status == TransactionStatus.IDLE:
            self._answer()

    def _answer(self) -> None:
        results, self._results = self._results, []
        failure = next((r for r in results if r.status not in _SUCCESS), None)
        if failure is None:
            if self._warning:
                self._lose(self._warning)
            else:
                self._settle(results[-1])
            return
        sqlstate = (failure.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        message = failure.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"unknown error"
        self._settle(refused_with(sqlstate, message.decode(errors="replace"), self._url))
        if sqlstate in {each.sqlstate for each in OUTDATED}:
            self._lose("the server takes no writes any more")

    def _settle(self, outcome: PGresult | StoreError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        self._turn.release()
        if waiter.done():  # cancelled
            return
        if isinstance(outcome, StoreError):
            waiter.set_exception(outcome)
        else:
            waiter.set_result(outcome)

    def _lose(self, reason: str) -> None:
        """Drop the connection; whoever waits for it cannot know the outcome."""
        pgconn, self._pgconn = self._pgconn, None
        if pgconn is None:
            return
        loop = asyncio.get_running_loop()
        # By number: libpq may have closed the socket already.
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        pgconn.finish()
        self._connection = None
        self._results = []
        if self._watchdog:
            self._watchdog.cancel()
            self._watchdog = None
        line = self._url.redact((reason.strip() or "connection lost").splitlines()[0])
        if not self._closed:
            logger.warning("lost the commit connection to %s: %s", self._url.masked, line)
        self._settle(CommitUnknown(f"{self._url.masked}: {line}"))

    def _watch(self) -> None:
        self._watchdog = None
        if self._waiter is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._deadline:
            self._lose(f"no answer within {ANSWER_S_MAX:.0f} s")
        else:
            self._watchdog = loop.call_at(self._deadline, self._watch)
