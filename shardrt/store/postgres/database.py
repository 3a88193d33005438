"""Connections to one PostgreSQL database, and statements by name.

One connection is kept for commits (see `lane`); a small pool serves everything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from shardrt.errors import CommitUnknown, ConfigInvalid, StoreError, StoreUnavailable
from shardrt.store.named_queries import load_queries
from shardrt.store.postgres.arrays import register_arrays
from shardrt.store.postgres.failures import OLD_PRIMARY, OUTDATED, connect_failed, refused
from shardrt.store.postgres.lane import ANSWER_S_MAX, Lane
from shardrt.store.postgres.url import PostgresUrl, parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    Row = tuple[Any, ...]
    Connection = psycopg.AsyncConnection[Row]

logger = logging.getLogger(__name__)

PACKAGE = "shardrt.store.postgres"

POOL_S_WAIT = 5.0
"""How long a call waits for a connection. Within it, a restarting server comes back."""

PREPARE_S_MAX = 10.0
"""How long a server may take to make a new connection ready, each of two times: it has let us in,
so it or the way to it is frozen then, and another server may have taken its place."""

UNTOLD = (
    pg.FeatureNotSupported,
    pg.InsufficientPrivilege,
    pg.ObjectNotInPrerequisiteState,
    pg.UndefinedFunction,
)
"""How a server refuses to tell its identity: it never will."""

# The pool logs each failed attempt, and with more of the server's text than we would.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Database:
    """A database with a schema, by URL."""

    def __init__(self, url: str, connections: int) -> None:
        if connections < 2:
            raise ConfigInvalid(f"store connections must be at least 2, not {connections}")
        self.url: PostgresUrl = parse_url(url)
        queries = load_queries(PACKAGE, f'"{self.url.schema}"')
        self._queries = {name: query.encode() for name, query in queries.items()}
        self.lane = Lane(self.url, self._connect_lane)
        self._connections = connections
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._connect_error: psycopg.Error | None = None
        self.queries_run = 0
        self.identity = ""
        """Which data we are connected to, and since which fail-over: the latest that we know."""
        self._server = ""
        """Where we have connected to of late: the first to be tried, as others may be silent."""
        self._identities: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
        """Of the connections in the pool, where they can be told."""

    async def probe(self) -> dict[str, str]:
        """Connect once, so that what is wrong with the URL shows at once and in full.

        Returns the settings that decide whether committed data survives a crash.
        """
        try:
            connection = await psycopg.AsyncConnection.connect(self.url.conninfo)
            try:
                cursor = await connection.execute(self._queries["settings"])
                return dict(await cursor.fetchall())
            finally:
                await connection.close()
        except psycopg.Error as error:
            raise connect_failed(error, self.url) from None

    async def start(self) -> None:
        """Make the connections ready; they connect when needed."""
        self.lane.start()
        self._pool = self._make_pool()
        await self._pool.open()

    async def close(self) -> None:
        self.lane.close()
        pool, self._pool = self._pool, None
        if pool:
            await pool.close()

    async def fetch(self, name: str, /, **params: object) -> list[Row]:
        """Run a reading statement of `queries.sql`. Raises `StoreUnavailable`."""
        return await self._run(name, params, write=False)

    async def fetch_unprepared(self, name: str, /, **params: object) -> list[Row]:
        """Do the same for a statement whose best plan depends on its parameters."""
        return await self._run(name, params, write=False, prepare=False)

    async def write(self, name: str, /, **params: object) -> list[Row]:
        """Run a writing statement in its own transaction. Also raises `CommitUnknown`."""
        return await self._run(name, params, write=True)

    async def _run(
        self,
        name: str,
        params: Mapping[str, object],
        *,
        write: bool,
        prepare: bool | None = None,
    ) -> list[Row]:
        async with Use(self, write=write) as connection:
            self.queries_run += 1
            async with asyncio.timeout(ANSWER_S_MAX):
                cursor = connection.cursor(binary=True)
                await cursor.execute(self._queries[name], params, prepare=prepare)
                return await cursor.fetchall() if cursor.description else []

    def query(self, name: str) -> bytes:
        """Return the text of a statement."""
        return self._queries[name]

    async def take(self) -> Connection:
        """Take a connection out of the pool; `give` it back."""
        if self._pool is None:
            raise StoreUnavailable(f"{self.url.masked}: the store is not open")
        return await self.take_from(self._pool)

    async def take_from(self, pool: AsyncConnectionPool[Connection]) -> Connection:
        """Take a connection out of a pool of this database that leads to where we are now."""
        try:
            connection = await pool.getconn()
            while not (_is_alive(connection) and self._is_current(connection)):
                await connection.close()
                await pool.putconn(connection)  # which drops it
                connection = await pool.getconn()
        except PoolClosed:
            raise StoreUnavailable(f"{self.url.masked}: the store is closed") from None
        except PoolTimeout as error:
            raise connect_failed(self._connect_error or error, self.url) from None
        return connection

    async def give(self, connection: Connection) -> None:
        if self._pool is None:
            await connection.close()
        else:
            await self._pool.putconn(connection)

    def _make_pool(self) -> AsyncConnectionPool[Connection]:
        name = f"shardrt-{self.url.schema}"
        return self.make_pool(name, self._connections - 1, self._configure, prepare_threshold=2)

    def make_pool(
        self,
        name: str,
        size: int,
        configure: Callable[[Connection], Awaitable[None]] | None = None,
        **kwargs: Any,
    ) -> AsyncConnectionPool[Connection]:
        """Return a pool of connections in autocommit to the primary, as far as we know it.

        To be opened by the caller, who uses `take_from`.
        """
        database = self

        class Remembering(psycopg.AsyncConnection[Any]):
            """Keeps the reason why connecting failed, which the pool would hide."""

            @classmethod
            async def connect(cls, *_: Any, **kwargs: Any) -> Self:
                try:
                    connection = await database._connect(super().connect, **kwargs)
                    if configure:
                        await configure(connection)
                except psycopg.Error as error:
                    database._connect_error = error
                    raise
                database._connect_error = None
                return cast("Self", connection)

        return AsyncConnectionPool(
            self.url.conninfo,
            connection_class=Remembering,
            kwargs={"autocommit": True, **kwargs},
            min_size=0,
            max_size=size,
            timeout=POOL_S_WAIT,
            reconnect_timeout=POOL_S_WAIT,
            num_workers=1,
            name=name,
            open=False,
        )

    async def _configure(self, connection: Connection) -> None:
        register_arrays(connection)
        try:
            with answering(connection):
                await self._set_session(connection)
        except BaseException:
            await connection.close()
            raise

    async def _set_session(self, connection: Connection) -> int:
        cursor = await connection.execute(self._queries["session"])
        rows: Sequence[Row] = await cursor.fetchall()
        return int(rows[0][1])

    async def _connect_lane(self) -> tuple[Connection, int]:
        connection = await self._connect(psycopg.AsyncConnection.connect, autocommit=True)
        try:
            with answering(connection):
                birth = await self._set_session(connection)
                if identity := self._identities.get(connection):
                    await connection.execute(self._queries["begin_era"], {"identity": identity})
                await connection.execute(self._queries["prepare"])
        except BaseException:
            await connection.close()
            raise
        if not self._is_current(connection):  # another one has learnt of a new primary meanwhile
            await connection.close()
            raise psycopg.OperationalError(OLD_PRIMARY)
        return connection, birth

    async def _connect(
        self, connect: Callable[..., Awaitable[Connection]], **kwargs: Any
    ) -> Connection:
        """Connect to the first server that may be written to, and was not replaced."""
        failures: list[psycopg.Error] = []
        for conninfo in sorted(self.url.conninfos, key=lambda each: each != self._server):
            try:
                connection = await connect(conninfo, **kwargs)
                try:
                    with answering(connection):
                        await self._identify(connection)
                except BaseException:
                    await connection.close()
                    raise
            except psycopg.OperationalError as error:
                failures.append(error)
            else:
                self._server = conninfo
                return connection
        raise next((each for each in failures if OLD_PRIMARY in str(each)), failures[-1])

    async def _identify(self, connection: Connection) -> None:
        """Learn which data a new connection leads to, where that can be told.

        Raises:
            psycopg.OperationalError: a server that we have seen replaced. It may not know, and
                let others write; what it says is not believed. Or one that should have told, but
                did not: it must not be taken for one that cannot, as no era would begin.
        """
        try:
            cursor = await connection.execute(self._queries["identity"])
            ((found,),) = await cursor.fetchall()
        except UNTOLD:
            return  # not permitted, or not that kind of server
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise psycopg.OperationalError(str(error)) from error
        if is_outdated(found, self.identity):
            raise psycopg.OperationalError(
                f"{OLD_PRIMARY}: its data is {found}, not {self.identity}"
            )
        self._identities[connection] = found
        if found != self.identity:
            before, self.identity = self.identity, found
            if before:
                logger.warning(
                    "%s: the server is another one, or was promoted: %s, before %s",
                    self.url.masked,
                    found,
                    before,
                )
                self.lane.drop("it leads to a server that was replaced")

    def _is_current(self, connection: Connection) -> bool:
        """Whether a connection of the pool leads where the newest one does."""
        return self._identities.get(connection, self.identity) == self.identity


@contextmanager
def answering(connection: Connection) -> Iterator[None]:
    """Hang up on a server that takes longer than `PREPARE_S_MAX`. Raises `OperationalError`.

    To cancel what waits would not do: the driver then asks the server to cancel the statement,
    and waits for that.
    """
    late = False

    def hang_up() -> None:
        nonlocal late
        late = True
        with suppress(OSError, psycopg.Error):
            with socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
                line.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(PREPARE_S_MAX, hang_up)
    try:
        yield
    except psycopg.OperationalError:
        if not late:
            raise
        raise psycopg.OperationalError(f"no answer within {PREPARE_S_MAX:.0f} s") from None
    finally:
        timer.cancel()


def is_outdated(found: str, known: str) -> bool:
    """Return whether an identity is of the same data as a known one, before a promotion."""
    system, _, timeline = found.partition("/")
    known_system, _, known_timeline = known.partition("/")
    return system == known_system and int(timeline) < int(known_timeline)


def _is_alive(connection: Connection) -> bool:
    """Tell whether the server has not said goodbye while the connection was idle.

    Looks at the socket only. Otherwise the first write after a restart of the server would
    have an unknown outcome.
    """
    try:
        connection.pgconn.consume_input()  # its last words
        connection.pgconn.consume_input()  # its end
    except psycopg.Error:
        return False
    return True


class Use:
    """``async with Use(database) as connection``: borrow one, and translate its errors."""

    def __init__(self, database: Database, *, write: bool) -> None:
        self._database = database
        self._write = write
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = await self._database.take()
        return self._connection

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        broken = connection.closed
        if isinstance(error, (TimeoutError, *OUTDATED)) or (
            connection.pgconn.transaction_status != TransactionStatus.IDLE
        ):
            await connection.close()
        await self._database.give(connection)
        failure = self._translate(error, broken=broken)
        if failure:
            raise failure from None

    def _translate(self, error: BaseException | None, *, broken: bool) -> StoreError | None:
        url = self._database.url
        match error:
            case TimeoutError():
                line = f"{url.masked}: no answer within {ANSWER_S_MAX:.0f} s"
            case psycopg.Error() if broken:
                line = str(connect_failed(error, url))
            case psycopg.Error():
                return refused(error, url)
            case _:
                return None
        return CommitUnknown(line) if self._write else StoreUnavailable(line)
