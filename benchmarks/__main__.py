"""Measure a workload: `python -m benchmarks hello --n 20000 --concurrency 500`.

Progress goes to stderr; the results are one line of JSON on stdout. Every answer is checked:
a wrong one ends the run with exit code 1.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.errors import HostFailed, WrongAnswer
from benchmarks.hosts import host
from benchmarks.metering import CpuMeter
from benchmarks.options import Mode, Options
from benchmarks.postgres_stats import PostgresStats
from benchmarks.stores import store
from benchmarks.workloads import WORKLOADS
from shardrt.errors import ShardrtError

WARMUP_SHARE = 10
WARMUP_MAX = 2000


@click.command()
@click.argument("workload", type=click.Choice(sorted(WORKLOADS)))
@click.option("--n", type=click.IntRange(1), help="Instances to measure.")
@click.option("--concurrency", type=click.IntRange(1), help="Instances in flight at a time.")
@click.option("--warmup", type=click.IntRange(0), help="Instances before the measurement.")
@click.option("--mode", type=click.Choice(["serve", "embedded"]), default="serve")
@click.option("--shards", type=click.IntRange(1), default=2, show_default=True)
@click.option("--partitions", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--store",
    "store_url",
    envvar="SHARDRT_BENCH_STORE",
    help="Store URL [default: a throw-away Postgres].",
)
@click.option("--url", help="Measure a host that runs already.")
@click.option("--idle-s", type=float, default=10.0, show_default=True)
def main(  # noqa: PLR0913, PLR0917 - one argument per option
    workload: str,
    n: int | None,
    concurrency: int | None,
    warmup: int | None,
    mode: Mode,
    shards: int,
    partitions: int,
    store_url: str | None,
    url: str | None,
    idle_s: float,
) -> None:
    """Run WORKLOAD and print its figures."""
    chosen = WORKLOADS[workload]
    n = n or chosen.n
    options = Options(
        n=n,
        concurrency=concurrency or chosen.concurrency,
        warmup=min(n // WARMUP_SHARE, WARMUP_MAX) if warmup is None else warmup,
        mode=mode,
        shards=shards,
        partitions=partitions,
        store=store_url,
        url=url,
        idle_s=idle_s,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(measure(workload, options))
    except* (WrongAnswer, HostFailed, ShardrtError, OSError) as group:
        click.echo(f"error: {first_of(group)}", err=True)
        sys.exit(1)
    click.echo(json.dumps(figures))


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def measure(workload: str, options: Options) -> dict[str, Any]:
    """Run one workload and return its figures."""
    async with contextlib.AsyncExitStack() as stack:
        # A host that runs already has its store; told which, we can read what it writes.
        store_url = options.store or ""
        if options.url is None:
            store_url = stack.enter_context(store(options.store))
        postgres = None
        if store_url.startswith("postgres"):
            postgres = stack.enter_context(PostgresStats(store_url))
        served = await stack.enter_async_context(host(options, store_url))
        find_roles = [*served.find_roles, *([postgres.roles] if postgres else [])]
        progress = stack.enter_context(progress_bars())
        bench = Bench(served.client, options, CpuMeter(find_roles), postgres, progress)
        await WORKLOADS[workload].run(bench)
        return {
            "workload": workload,
            "n": options.n,
            **bench.figures,
            "machine": report.machine(),
            "versions": report.versions(),
            "postgres": postgres.facts() if postgres else None,
            "settings": report.settings(options, store_url),
        }


def progress_bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
