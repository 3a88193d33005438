"""Activities whose writes happen exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from shardrt import (
    ActivityContext,
    App,
    CallNext,
    ExecutionInfo,
    OrchestrationContext,
    RetryPolicy,
    Runtime,
)
from shardrt.errors import ConfigInvalid, EpochFenced
from shardrt.store.postgres.store import PostgresStore
from shardrt.store.postgres.transactions import PostgresTransaction
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.store.base import Append

SETTINGS = {"store.unsafe": True, "host.lease_ttl_s": 1.0}


class Deaf(PostgresStore):
    """From some time on, what it is told to append does not get there."""

    deaf = False

    async def append(self, batch: Sequence[Append]) -> set[int]:
        if self.deaf:
            await asyncio.Event().wait()
        return await super().append(batch)


class Bank:
    """An app with a table of its own, and a hub's store."""

    def __init__(self, url: str) -> None:
        self.store = Deaf(url, connections=4, unsafe=True)
        self.conninfo = self.store._database.url.conninfo
        self.schema = self.store._database.url.schema
        self.runs = 0
        self.deafen = False
        self.app = App()
        bank = self

        @self.app.activity(transactional=True, retry=RetryPolicy(first_interval=0.0))
        async def pay(ctx: ActivityContext, amount: int) -> int:
            bank.runs += 1
            insert = f'INSERT INTO "{bank.schema}".payments VALUES (%s) RETURNING 1'
            await ctx.connection.execute(insert, (amount,))
            if amount < 0 and ctx.attempt == 1:
                raise ValueError("negative")
            bank.store.deaf = bank.deafen
            return amount

        @self.app.orchestrator
        async def paying(ctx: OrchestrationContext, amount: int) -> int:
            return await ctx.call_activity(pay, amount)

    @classmethod
    async def of(cls, url: str) -> Bank:
        bank = cls(url)
        store = PostgresStore(url, unsafe=True)
        await store.open()
        await store.create(2)
        await store.close()
        await bank.query(f'CREATE TABLE "{bank.schema}".payments (amount integer)')
        return bank

    async def query(self, statement: str) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(
            self.conninfo, autocommit=True
        ) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def payments(self) -> list[int]:
        return [row[0] for row in await self.query(f'SELECT amount FROM "{self.schema}".payments')]

    async def outcomes(self) -> int:
        return len(await self.query(f'SELECT task_id FROM "{self.schema}".outcomes'))

    def runtime(self, store: PostgresStore) -> Runtime:
        return Runtime(self.app, store=store, partitions=2, settings=SETTINGS)


def test_what_an_activity_writes_is_committed_with_its_result(hub_dsn: str):
    async def main() -> None:
        bank = await Bank.of(hub_dsn)
        async with bank.runtime(PostgresStore(hub_dsn, connections=4, unsafe=True)) as runtime:
            handle = await runtime.client.start("paying", 5)
            assert await handle.result(timeout=10) == 5
            assert await bank.payments() == [5]

            async def is_tidy() -> bool:
                return await bank.outcomes() == 0

            await eventually(is_tidy)

    asyncio.run(main())


def test_what_middleware_fails_is_rolled_back(hub_dsn: str):
    async def main() -> None:
        bank = await Bank.of(hub_dsn)

        @bank.app.execution_middleware
        async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
            result = await call_next()
            if info.attempt == 1:
                raise ValueError("after it was written")
            return result + 1

        async with bank.runtime(PostgresStore(hub_dsn, connections=4, unsafe=True)) as runtime:
            handle = await runtime.client.start("paying", 5)
            assert await handle.result(timeout=10) == 6
            assert (bank.runs, await bank.payments()) == (2, [5])

    asyncio.run(main())


def test_what_a_failed_attempt_wrote_is_gone(hub_dsn: str):
    async def main() -> None:
        bank = await Bank.of(hub_dsn)
        async with bank.runtime(PostgresStore(hub_dsn, connections=4, unsafe=True)) as runtime:
            handle = await runtime.client.start("paying", -5)
            assert await handle.result(timeout=10) == -5
            assert await bank.payments() == [-5]
            assert bank.runs == 2

    asyncio.run(main())


def test_a_host_that_dies_between_commit_and_journal_leaves_no_second_payment(hub_dsn: str):
    async def main() -> None:
        bank = await Bank.of(hub_dsn)
        bank.deafen = True
        dying = bank.runtime(bank.store)
        await dying.__aenter__()
        await dying.client.start("paying", 7, instance_id="a")

        async def is_paid() -> bool:
            return await bank.outcomes() == 1

        await eventually(is_paid)
        life = dying.host._life
        assert life is not None
        life.cancel()
        await asyncio.wait([life])
        await dying.client.close()
        await bank.store.close()
        async with bank.runtime(PostgresStore(hub_dsn, connections=4, unsafe=True)) as runtime:
            assert await runtime.client.handle("a").result(timeout=20) == 7
        assert (bank.runs, await bank.payments()) == (1, [7])
        assert await bank.outcomes() == 0

    asyncio.run(main())


def test_an_attempt_of_an_owner_that_is_one_no_more_has_no_outcome(
    hub_dsn: str, monkeypatch: pytest.MonkeyPatch
):
    """The next owner repeats it; that the first was fenced is no failure of the activity."""
    commit, fences = PostgresTransaction.commit, [EpochFenced("the epoch is over")]

    async def fenced_at_first(self: PostgresTransaction, outcome: bytes) -> None:
        if fences:
            raise fences.pop()
        await commit(self, outcome)

    async def main() -> None:
        bank = await Bank.of(hub_dsn)

        @bank.app.activity(transactional=True, retry=None)
        async def pay_once(ctx: ActivityContext, amount: int) -> int:
            insert = f'INSERT INTO "{bank.schema}".payments VALUES (%s)'
            await ctx.connection.execute(insert, (amount,))
            return amount

        @bank.app.orchestrator
        async def paying_once(ctx: OrchestrationContext, amount: int) -> int:
            return await ctx.call_activity(pay_once, amount)

        async with bank.runtime(PostgresStore(hub_dsn, connections=4, unsafe=True)) as runtime:
            handle = await runtime.client.start("paying_once", 5)
            assert await handle.result(timeout=10) == 5
        assert (fences, await bank.payments()) == ([], [5])

    monkeypatch.setattr(PostgresTransaction, "commit", fenced_at_first)
    asyncio.run(main())


def test_an_outcome_that_nobody_waits_for_is_dropped(hub_dsn: str):
    async def main() -> None:
        bank = await Bank.of(hub_dsn)
        await bank.query(f"INSERT INTO \"{bank.schema}\".outcomes VALUES (0, 'gone', 'x', 1, '1')")
        async with bank.runtime(PostgresStore(hub_dsn, connections=4, unsafe=True)):

            async def is_tidy() -> bool:
                return await bank.outcomes() == 0

            await eventually(is_tidy)

    asyncio.run(main())


@pytest.mark.parametrize("store", ["memory://", "sqlite:///hub.db"])
def test_other_stores_are_refused_at_once(
    store: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    app = App()

    @app.activity(transactional=True)
    async def pay(ctx: ActivityContext) -> None: ...

    with pytest.raises(ConfigInvalid, match=r"\(pay\) need a hub in PostgreSQL, not "):
        asyncio.run(Runtime(app, store=store).__aenter__())


def test_only_coroutines_that_are_not_speculative_can_be_transactional():
    app = App()
    with pytest.raises(ConfigInvalid, match="transactional goes with async def"):
        app.activity(transactional=True)(lambda: None)

    async def early() -> None: ...

    with pytest.raises(ConfigInvalid, match="transactional goes with async def"):
        app.activity(transactional=True, speculative=True)(early)


def test_others_have_no_connection():
    with pytest.raises(ConfigInvalid, match="'pay' is not registered as transactional"):
        ActivityContext(name="pay").connection  # noqa: B018
