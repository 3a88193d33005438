"""Entities: accounts, and transfers that move money between two of them or not at all.

shardrt serve
shardrt entity signal @account@ann deposit --input 100
shardrt start transfer --input '{"source": "ann", "target": "bob", "amount": 30}' --wait
shardrt entity list --name account
"""

from __future__ import annotations

from dataclasses import dataclass

from shardrt import App, EntityId, OrchestrationContext

app = App()


@dataclass
class Transfer:
    """What to move."""

    source: str
    target: str
    amount: int


@app.entity
class Account:
    """One account; its key is the name of the owner."""

    balance: int = 0

    def look(self) -> int:
        return self.balance

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def withdraw(self, amount: int) -> int:
        if amount > self.balance:
            raise ValueError(f"only {self.balance} there, not {amount}")
        self.balance -= amount
        return self.balance


@app.orchestrator
async def transfer(ctx: OrchestrationContext, order: Transfer) -> bool:
    """Move money, if there is enough. Nobody sees it gone from one and not on the other."""
    source, target = EntityId(Account, order.source), EntityId(Account, order.target)
    async with ctx.lock(source, target):
        if await ctx.call_entity(source, Account.look) < order.amount:
            return False
        await ctx.call_entity(source, Account.withdraw, order.amount)
        await ctx.call_entity(target, Account.deposit, order.amount)
    return True
