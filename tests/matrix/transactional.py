"""Activities whose writes commit with their outcome: for a hub in PostgreSQL alone."""

from __future__ import annotations

import psycopg

from shardrt import ActivityContext, App, OrchestrationContext
from shardrt.store.postgres.url import parse_url
from tests.matrix.stage import Stage, note, passed, scenario

app = App()


@app.activity(transactional=True)
async def pays(ctx: ActivityContext, order: tuple[str, str, int]) -> int:
    table, directory, amount = order
    await ctx.connection.execute(f"INSERT INTO {table} VALUES ({amount})")
    note(f"{directory}/notes", f"paid {amount}")
    if amount == 2:
        await passed(f"{directory}/gate")
    return amount


@app.orchestrator
async def payments(ctx: OrchestrationContext, order: tuple[str, str]) -> list[int]:
    return [await ctx.call_activity(pays, (*order, amount)) for amount in (1, 2)]


@scenario(stores=("postgres",))
async def transactional_writes_happen_once(stage: Stage) -> None:
    url = parse_url(stage.store_url)
    table = f'"{url.schema}".payments'
    async with await psycopg.AsyncConnection.connect(url.conninfo, autocommit=True) as connection:
        await connection.execute(f"CREATE TABLE {table} (amount int)".encode())
        order = (table, str(stage.directory))
        await stage.client.start(payments, order, instance_id=stage.id())
        await stage.noted("paid 2")
        await stage.middle()
        stage.open_gate()
        assert await stage.result() == [1, 2]
        rows = await connection.execute(f"SELECT amount FROM {table} ORDER BY 1".encode())
        assert await rows.fetchall() == [(1,), (2,)]
