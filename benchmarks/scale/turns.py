"""Hubs side by side, loaded in turns: a slow minute of the machine is one for all of them."""

import asyncio
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


async def in_turns(
    rounds: int, hubs: Mapping[int, Hub], row: Callable[[int, Figures], Row], cost: str
) -> list[Row]:
    """Return a row for each hub: the medians of its figures over the rounds.

    Args:
        rounds: how often each is loaded.
        hubs: all are up for the whole time; idle ones cost next to nothing.
        row: of a hub, from the figures of a round.
        cost: the figure whose lowest and highest are shown, too.
    """
    found: dict[int, list[Row]] = {value: [] for value in hubs}
    async with AsyncExitStack() as stack:
        loads = {value: await stack.enter_async_context(hub) for value, hub in hubs.items()}
        for _ in range(rounds):
            for value, load in loads.items():
                found[value].append(row(value, await load()))
    return [medians(rows, cost) for rows in found.values()]


def medians(rows: Sequence[Row], cost: str) -> Row:
    """Return the median of each figure, and of the cost its lowest and highest as well."""
    together = {
        name: [each for row in rows if (each := row.get(name)) is not None] for name in rows[0]
    }
    middle: Row = {
        name: round(statistics.median(values), 3) if values else None
        for name, values in together.items()
    }
    return middle | {"lowest": min(together[cost]), "highest": max(together[cost])}


def at_once(loads: Sequence[Load]) -> Load:
    """Return what loads all of these at the same time; its figures are of all together."""

    async def load() -> Figures:
        found = await asyncio.gather(*(each() for each in loads))
        figures = {
            name: together([each[name] for each in found])
            for name in ("cpu_us_per_instance", "store_per_instance")
            if name in found[0]
        }
        # One process is the client of all of them, and each has counted all of it.
        cpu = figures["cpu_us_per_instance"]
        cpu["total"] -= cpu["client"] * (1 - 1 / len(loads))
        return figures | {"instances_per_s": sum(each["instances_per_s"] for each in found)}

    return load


def together(found: Sequence[Figures]) -> Figures:
    """Return the mean of each figure."""
    return {name: statistics.mean(each.get(name, 0) for each in found) for name in found[0]}


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
