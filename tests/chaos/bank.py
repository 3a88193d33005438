"""Entities under fire: tallies that count what they are told, and purses that money moves between.

Whatever an entity does leaves a line in its state, so that a lost, repeated or reordered operation
shows. Money is moved in critical sections with an activity in the middle, where hosts like to die.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from shardrt import ActivityContext, App, EntityId, OrchestrationContext
from tests.chaos import ledger

app = App()

TALLIES = tuple(f"tally-{number}" for number in range(8))
PURSES = tuple(f"purse-{number}" for number in range(12))


@dataclass(frozen=True)
class Move:
    """One side of a transfer: what it added to a purse."""

    transfer: str
    """The id of the instance."""
    amount: int


@dataclass(frozen=True)
class Transfer:
    """What an instance of `transfer` returns."""

    source: str
    target: str
    amount: int


@dataclass(frozen=True)
class Signed:
    """What the activity in the middle returns: the token of its effect."""

    token: str


@dataclass(frozen=True)
class Count:
    """What a tally was told: all numbers up to the latest, but for those that are missing."""

    latest: int
    missing: list[int]
    late: list[int]
    """Numbers that came when they were missing."""
    twice: list[int]


@app.entity
class Tally:
    """Is told the numbers from 0 on; keeps what was not as it should be."""

    latest: int = -1
    missing: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)

    def mark(self, number: int) -> int:
        """Return how many there are now."""
        if number > self.latest:
            self.missing.extend(range(self.latest + 1, number))
            self.latest = number
        elif number in self.missing:
            self.missing.remove(number)
            self.late.append(number)
        else:
            self.twice.append(number)
        return self.latest + 1 - len(self.missing)

    def look(self) -> Count:
        return Count(self.latest, self.missing, self.late, self.twice)


@app.entity
class Purse:
    """All that was ever put in or taken out; what is in it is the sum."""

    moves: list[Move] = field(default_factory=list)

    def add(self, move: Move) -> None:
        self.moves.append(move)

    def look(self) -> list[Move]:
        return self.moves


@app.activity
async def sign(ctx: ActivityContext) -> Signed:
    return Signed(ledger.record(ctx.instance_id, ctx.execution_id, ctx.task_id, ctx.attempt))


@app.orchestrator
async def transfer(ctx: OrchestrationContext) -> Transfer:
    """Move some money from one purse to another; nobody sees it gone and not yet there."""
    source, target = ctx.random.sample(PURSES, 2)
    amount = ctx.random.randint(1, 100)
    taken, given = EntityId(Purse, source), EntityId(Purse, target)
    async with ctx.lock(taken, given):
        await ctx.call_entity(taken, Purse.add, Move(ctx.instance_id, -amount))
        await ctx.call_activity(sign)
        await ctx.call_entity(given, Purse.add, Move(ctx.instance_id, amount))
    return Transfer(source, target, amount)


@app.orchestrator
async def audit(ctx: OrchestrationContext) -> dict[str, list[Move]]:
    """Return what was done to every purse, at a time when nothing is under way."""
    purses = [EntityId(Purse, key) for key in PURSES]
    async with ctx.lock(*purses):
        books = await asyncio.gather(*(ctx.call_entity(each, Purse.look) for each in purses))
    return dict(zip(PURSES, books, strict=True))
