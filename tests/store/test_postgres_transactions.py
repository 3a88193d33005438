"""Transactions of activities: their writes and their outcome, together or not at all."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from shardrt.errors import CommitUnknown, EpochFenced, OutcomeExists, StoreUnavailable
from shardrt.store.postgres.store import PostgresStore
from shardrt.store.transactions import OutcomeKey, transactions_of
from tests.store.hubs import Stores, owned, taken_over

if TYPE_CHECKING:
    from typing import Any

KEY = OutcomeKey(0, "i", "x", 3)
OTHER = OutcomeKey(0, "i", "x", 4)


class Ground:
    """A hub with a table of the user's beside it."""

    def __init__(self, store: PostgresStore, epoch: int) -> None:
        self.store = store
        self.transactions = store.transactions
        self.epoch = epoch
        self.table = f'"{store._database.url.schema}".effects'

    @classmethod
    async def of(cls, pg: Stores) -> Ground:
        store = await pg.open()
        assert isinstance(store, PostgresStore)
        ground = cls(store, await owned(store))
        await ground.run(f"CREATE TABLE {ground.table} (what text UNIQUE)")
        return ground

    async def run(self, statement: str) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(
            self.store._database.url.conninfo, autocommit=True
        ) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def effects(self) -> list[str]:
        return [what for (what,) in await self.run(f"SELECT what FROM {self.table} ORDER BY 1")]

    async def write(self, connection: Any, what: str) -> None:
        await connection.execute(f"INSERT INTO {self.table} VALUES (%s)", (what,))

    async def commit(self, key: OutcomeKey, what: str, outcome: bytes = b"1") -> None:
        async with self.transactions.begin(key, self.epoch) as transaction:
            await self.write(transaction.connection, what)
            await transaction.commit(outcome)


async def test_writes_and_outcome_are_committed_together(pg: Stores):
    ground = await Ground.of(pg)
    await ground.commit(KEY, "one", b'{"a": "\'b\\\\"}')
    assert await ground.effects() == ["one"]
    assert await ground.transactions.outcome(KEY) == b'{"a": "\'b\\\\"}'
    assert await ground.transactions.outcome(OTHER) is None
    assert await ground.transactions.outcomes(0) == [KEY]


async def test_what_is_not_committed_leaves_nothing(pg: Stores):
    ground = await Ground.of(pg)
    with suppress(ValueError):
        async with ground.transactions.begin(KEY, ground.epoch) as transaction:
            await ground.write(transaction.connection, "one")
            raise ValueError
    assert await ground.effects() == []
    assert await ground.transactions.outcome(KEY) is None


async def test_nothing_is_committed_under_an_old_epoch(pg: Stores):
    ground = await Ground.of(pg)
    async with ground.transactions.begin(KEY, ground.epoch) as transaction:
        await ground.write(transaction.connection, "one")
        # An open transaction holds up nobody.
        await ground.run(f"UPDATE {ground.table[: -len('.effects')]}.hosts SET expires_at = 0")
        await taken_over(ground.store)
        with pytest.raises(EpochFenced):
            await transaction.commit(b"1")
    assert await ground.effects() == []
    assert await ground.transactions.outcome(KEY) is None


async def test_of_two_attempts_one_commits(pg: Stores):
    ground = await Ground.of(pg)
    async with ground.transactions.begin(KEY, ground.epoch) as transaction:
        await ground.write(transaction.connection, "late")
        await ground.commit(KEY, "early", b'"early"')
        with pytest.raises(OutcomeExists):
            await transaction.commit(b'"late"')
    assert await ground.effects() == ["early"]
    assert await ground.transactions.outcome(KEY) == b'"early"'


async def test_an_error_of_the_user_is_the_users(pg: Stores):
    ground = await Ground.of(pg)
    await ground.commit(KEY, "one")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await ground.commit(OTHER, "one")
    await ground.commit(OTHER, "two")
    assert await ground.effects() == ["one", "two"]


async def test_a_transaction_cannot_be_committed_by_its_user(pg: Stores):
    ground = await Ground.of(pg)
    with pytest.raises(psycopg.ProgrammingError):
        async with ground.transactions.begin(KEY, ground.epoch) as transaction:
            await transaction.connection.commit()


async def test_a_connection_that_breaks_at_the_commit_leaves_its_outcome_open(pg: Stores):
    ground = await Ground.of(pg)
    async with ground.transactions.begin(KEY, ground.epoch) as transaction:
        await ground.write(transaction.connection, "one")
        pid = transaction.connection.info.backend_pid
        await ground.run(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(CommitUnknown):
            await transaction.commit(b"1")
    assert await ground.transactions.settle(KEY) is None
    await ground.commit(KEY, "two", b"2")
    assert await ground.transactions.settle(KEY) == b"2"


async def test_no_transaction_begins_at_a_primary_that_was_replaced(
    pg: Stores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shardrt.store.postgres.database.POOL_S_WAIT", 0.5)
    ground = await Ground.of(pg)
    database = ground.store._database
    async with ground.transactions.begin(KEY, ground.epoch) as transaction:
        old = transaction.connection
    async with ground.transactions.begin(KEY, ground.epoch) as transaction:
        assert transaction.connection is old
    system, _, timeline = database.identity.partition("/")
    database._identities[old] = f"{system}/{int(timeline) - 1}"
    async with ground.transactions.begin(KEY, ground.epoch) as transaction:
        assert transaction.connection is not old
    database.identity = f"{system}/{int(timeline) + 1}"
    with pytest.raises(StoreUnavailable, match="was replaced"):
        async with ground.transactions.begin(KEY, ground.epoch):
            pass


async def test_outcomes_can_be_forgotten(pg: Stores):
    ground = await Ground.of(pg)
    for key in (KEY, OTHER):
        await ground.commit(key, str(key.task_id))
    await ground.transactions.forget([KEY])
    await ground.transactions.forget([KEY])
    assert await ground.transactions.outcomes(0) == [OTHER]


async def test_other_stores_have_no_transactions(sqlite: Stores):
    assert transactions_of(sqlite.make()) is None
