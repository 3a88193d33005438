"""Hubs side by side, loaded in turns: a slow minute of the machine is one for all of them."""

import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from benchmarks.scale.verdicts import Row
from shardrt.bench.bench import Bench
from shardrt.bench.measuring import prepared
from shardrt.bench.options import Options

Figures = dict[str, Any]
Load = Callable[[], Coroutine[Any, Any, Figures]]
"""Load a hub once."""
Hub = AbstractAsyncContextManager[Load]
RowOf = Callable[[int, Figures], Row]
"""Make a row of what was varied, and of what a hub's load has found."""


async def in_turns(
    rounds: int, hubs: Mapping[int, Hub], row: RowOf, cost: str, *more: str
) -> list[Row]:
    """Return a row for each hub: the medians of its figures over the rounds.

    Args:
        rounds: how often each is loaded.
        hubs: all are up for the whole time; idle ones cost next to nothing.
        row: of a hub, from the figures of a round.
        cost: the figure whose lowest and highest are shown, too.
        more: further such figures.
    """
    found: dict[int, list[Row]] = {value: [] for value in hubs}
    async with AsyncExitStack() as stack:
        loads = {value: await stack.enter_async_context(hub) for value, hub in hubs.items()}
        for _ in range(rounds):
            for value, load in loads.items():
                found[value].append(row(value, await load()))
    return [medians(rows, cost, *more) for rows in found.values()]


def medians(rows: Sequence[Row], cost: str, *more: str) -> Row:
    """Return the median of each figure, and of the costs their lowest and highest as well."""
    together = {
        name: [each for row in rows if (each := row.get(name)) is not None] for name in rows[0]
    }
    middle: Row = {
        name: round(statistics.median(values), 3) if values else None
        for name, values in together.items()
    }
    ranges: Row = {"lowest": min(together[cost]), "highest": max(together[cost])}
    for name in more:
        ranges |= {f"{name}_lowest": min(together[name]), f"{name}_highest": max(together[name])}
    return middle | ranges


@asynccontextmanager
async def beside(one: Hub, apart: Hub) -> AsyncIterator[Load]:
    """Yield what loads a hub and right after it another, next time the other way round.

    The figures are those of the one; those of the other are in them, as "apart".
    """
    async with one as load_one, apart as load_apart:
        order = [("one", load_one), ("apart", load_apart)]

        async def load() -> Figures:
            found = {name: await load_next() for name, load_next in order}
            order.reverse()
            return found["one"] | {"apart": found["apart"]}

        yield load


@asynccontextmanager
async def hub(options: Options, run: Callable[[Bench], Awaitable[Any]]) -> AsyncIterator[Load]:
    """Yield what runs a workload in a hub of its own."""
    async with prepared(options) as bench:
        yield loading(bench, run)


def loading(bench: Bench, run: Callable[[Bench], Awaitable[Any]]) -> Load:
    async def load() -> Figures:
        bench.figures.clear()
        await run(bench)
        # What is written is the same each time, and the server tells it late.
        bench.postgres = None
        return dict(bench.figures)

    return load
