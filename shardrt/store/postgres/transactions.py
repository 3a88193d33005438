"""Transactions of activities, on connections of their own.

They are the user's: with the server's own settings, also the search path. While one is open,
no row of the hub is locked.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg

from shardrt.errors import CommitUnknown, EpochFenced, OutcomeExists, StoreUnavailable
from shardrt.store.postgres.failures import connect_failed
from shardrt.store.transactions import OutcomeKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from psycopg_pool import AsyncConnectionPool

    from shardrt.store.postgres.database import Database

    Connection = psycopg.AsyncConnection[Any]

CONNECTIONS_MAX = 64


class PostgresTransaction:
    """An open transaction of an activity. Implements `store.transactions.Transaction`."""

    def __init__(self, database: Database, connection: Connection, params: dict[str, Any]) -> None:
        self.connection = connection
        self._database = database
        self._params = params

    async def commit(self, outcome: bytes) -> None:
        url = self._database.url
        # Its parameters are put in by the client: a server takes them for one statement only.
        cursor = psycopg.AsyncClientCursor(self.connection)
        query = self._database.query("commit_outcome")
        try:
            await cursor.execute(query, {**self._params, "outcome": outcome})
        except pg.UniqueViolation as error:
            if error.diag.table_name == "outcomes" and error.diag.schema_name == url.schema:
                raise OutcomeExists("another attempt has committed") from None
            raise  # one of the user's, found at the commit
        except pg.DivisionByZero:
            raise EpochFenced("the epoch is over") from None
        except psycopg.Error as error:
            if self.connection.closed:
                raise CommitUnknown(str(connect_failed(error, url))) from None
            raise


class PostgresTransactions:
    """Implements `store.transactions.Transactions`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool: AsyncConnectionPool[Connection] | None = None

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def outcome(self, key: OutcomeKey) -> bytes | None:
        rows = await self._database.fetch("outcome", **key._asdict())
        return bytes(rows[0][0]) if rows else None

    async def settle(self, key: OutcomeKey) -> bytes | None:
        try:
            async with self._connection() as connection:
                async with connection.transaction(force_rollback=True):
                    # Waits for a commit of this key that the server is still at.
                    await connection.execute(self._database.query("claim_outcome"), key._asdict())
        except psycopg.Error as error:
            raise StoreUnavailable(f"{self._database.url.masked}: {error}".strip()) from error
        return await self.outcome(key)

    @asynccontextmanager
    async def begin(self, key: OutcomeKey, epoch: int) -> AsyncIterator[PostgresTransaction]:
        async with self._connection() as connection, connection.transaction():
            yield PostgresTransaction(self._database, connection, {**key._asdict(), "epoch": epoch})

    async def outcomes(self, partition: int) -> list[OutcomeKey]:
        rows = await self._database.fetch("outcomes", partition=partition)
        return [OutcomeKey(*row) for row in rows]

    async def forget(self, keys: Sequence[OutcomeKey]) -> None:
        await self._database.write(
            "forget_outcomes",
            partitions=[key.partition for key in keys],
            instance_ids=[key.instance_id for key in keys],
            execution_ids=[key.execution_id for key in keys],
            task_ids=[key.task_id for key in keys],
        )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        if self._pool is None:
            name = f"shardrt-activities-{self._database.url.schema}"
            self._pool = self._database.make_pool(name, CONNECTIONS_MAX)
            await self._pool.open()
        pool = self._pool
        connection = await self._database.take_from(pool)
        try:
            yield connection
        finally:
            # What is left of a transaction that was cancelled must not reach the next one.
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.close()
            await pool.putconn(connection)
