"""Transfers between accounts, both locked: money is neither made nor lost.

With many accounts few transfers meet; with few (`--accounts 2`) all wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardrt import App, EntityId, OrchestrationContext
from shardrt.bench.errors import RunFailed, check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()

STRIDE = 7


@dataclass(frozen=True)
class Transfer:
    """What to move between two accounts, named by their keys."""

    source: str
    target: str
    amount: int


@app.entity(name="bench.account")
class Account:
    """May be overdrawn: it is the sum over all that counts."""

    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def get(self) -> int:
        return self.balance


@app.orchestrator(name="bench.transfer")
async def transfer(ctx: OrchestrationContext, order: Transfer) -> bool:
    """Move money; return whether each account had then what it had before, and the amount."""
    source, target = EntityId(Account, order.source), EntityId(Account, order.target)
    async with ctx.lock(source, target):
        before = await ctx.call_entity(source, Account.get)
        after = await ctx.call_entity(source, Account.add, -order.amount)
        await ctx.call_entity(target, Account.add, order.amount)
    return after == before - order.amount


async def run(bench: Bench) -> None:
    """Transfer, then compare every account with a list kept beside."""
    accounts = bench.size("accounts")
    if accounts < 2:
        raise RunFailed("a transfer needs two accounts")
    balances = [0] * accounts

    async def run_one(number: int) -> None:
        source = number % accounts
        target = (source + 1 + number * STRIDE % (accounts - 1)) % accounts
        order = Transfer(_key(bench, source), _key(bench, target), 1 + number % 100)
        handle = await bench.client.start(transfer, order)
        check(await handle.result(), True, f"the result of {handle.instance_id}")
        balances[source] -= order.amount
        balances[target] += order.amount

    await bench.load(run_one)
    found = [
        await bench.client.call_entity(EntityId(Account, _key(bench, number)), Account.get)
        for number in range(accounts)
    ]
    # Each of them, so their sum too, which is 0.
    check(found, balances, "the list of balances")


def _key(bench: Bench, number: int) -> str:
    return f"{bench.name}-{number}"
