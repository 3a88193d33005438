"""A bank whose accounts always sum up to nothing, however many transfers are under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shardrt import App, EntityContext, EntityId, OrchestrationContext

app = App()


@dataclass
class Move:
    source: str
    target: str
    amount: int


@app.entity
class Account:
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def get(self) -> int:
        return self.balance

    def fail_after(self, ctx: EntityContext, amount: int) -> None:
        self.balance += amount
        ctx.signal(ctx.entity_id, "add", amount)
        raise ValueError(f"not {amount}")

    def pass_on(self, ctx: EntityContext, target: str) -> None:
        ctx.signal(EntityId(Account, target), Account.add, self.balance)
        ctx.start_orchestration(audit, [target], instance_id=f"audit-{target}")
        ctx.delete_state()


@app.entity
class Journal:
    """Remembers what it was told, in order."""

    lines: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        self.lines.append(line)


@app.entity(name="switch")
def switch(ctx: EntityContext, value: object) -> object:
    if ctx.operation == "set":
        ctx.set_state(value)
    return ctx.get_state()


@app.orchestrator
async def move(ctx: OrchestrationContext, order: Move) -> int:
    source, target = EntityId(Account, order.source), EntityId(Account, order.target)
    async with ctx.lock(source, target):
        await ctx.call_entity(source, Account.add, -order.amount)
        return await ctx.call_entity(target, Account.add, order.amount)


@app.orchestrator
async def audit(ctx: OrchestrationContext, keys: list[str]) -> int:
    accounts = [EntityId(Account, key) for key in keys]
    total = 0
    async with ctx.lock(*accounts):
        for account in accounts:
            total += await ctx.call_entity(account, Account.get)
    return total


@app.orchestrator
async def hold(ctx: OrchestrationContext, keys: list[str]) -> str:
    async with ctx.lock(*(EntityId(Account, key) for key in keys)):
        return await ctx.wait_for_event("go", str)


@app.orchestrator
async def notes(ctx: OrchestrationContext, count: int) -> None:
    for number in range(count):
        ctx.signal_entity("@journal@all", "note", f"{ctx.instance_id} {number}")
        if number % 3 == 0:
            await ctx.call_entity(EntityId(Account, "x"), Account.get)


@app.orchestrator
async def caught(ctx: OrchestrationContext, key: str) -> list[Any]:
    account = EntityId(Account, key)
    found: list[Any] = [await ctx.call_entity(account, Account.add, 5)]
    try:
        await ctx.call_entity(account, Account.fail_after, 7)
    except Exception as error:  # noqa: BLE001
        found.append(str(error))
    found.append(await ctx.call_entity(account, Account.get))
    return found
