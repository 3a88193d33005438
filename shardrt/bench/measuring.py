"""From options to the results of one run."""

import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shardrt.bench import figures
from shardrt.bench.bench import Bench
from shardrt.bench.catalog import WORKLOADS
from shardrt.bench.hosts import host
from shardrt.bench.metering import CpuMeter
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import PostgresStats
from shardrt.bench.stores import store
from shardrt.host.memory import settle_memory


async def measure(workload: str, options: Options) -> dict[str, Any]:
    """Run one workload and return what it measured, as it goes into a file of results.

    Raises:
        RunFailed: it says nothing, or an answer was wrong; perhaps within groups.
    """
    async with prepared(options) as bench:
        await WORKLOADS[workload].run(bench)
        return {
            "workload": workload,
            "n": options.n,
            "settings": figures.settings(options, bench.store_url),
            "figures": bench.figures,
            "machine": figures.machine(),
            "versions": figures.versions(),
            "postgres": bench.postgres.facts() if bench.postgres else None,
            "series": bench.series,
        }


@asynccontextmanager
async def prepared(options: Options) -> AsyncIterator[Bench]:
    """Yield what a workload works with: a store, a host that serves, and meters at both."""
    async with contextlib.AsyncExitStack() as stack:
        # A host that runs already has its store; told which, we can read what it writes.
        store_url = options.store or ""
        if options.mode != "url":
            store_url = stack.enter_context(store(options.store))
        postgres = None
        if store_url.startswith("postgres"):
            postgres = stack.enter_context(PostgresStats(store_url))
        served = await stack.enter_async_context(host(options, store_url))
        stack.enter_context(collecting_seldom())
        find_roles = [*served.find_roles, *([postgres.roles] if postgres else [])]
        progress = stack.enter_context(progress_bars())
        yield Bench(served, options, CpuMeter(find_roles), postgres, store_url, progress)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Keep the garbage collector of this process from being measured as the host's latency.

    With Python's defaults a full collection stops a client under load for 40 ms and more, every
    other second.
    """
    thresholds = gc.get_threshold()
    settle_memory()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress on a terminal; elsewhere nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet,
    ) as progress:
        yield progress
