"""The path of a `hello` without what makes it a hub, and the hub beside it, at the same rates.

    python -m benchmarks.limits.path [--n 20000] [--concurrency 1000] [--rounds 3] [--json FILE]

The bare path is a client, two workers, and a Postgres with fsync on. The code of `hello`, and how
often commits are made, are the hub's. A step writes what it asks for and waits until that is
durable, so there are six commits, too. A link goes from the client to each worker, where the hub
has two on the way, with a gateway between, and carries one message each way, not two. What is left
out beside: partitions, state, history, checkpoints, leases, activities that can be retried, starts
that must not happen twice, a session that can be taken up again. So it shows what a machine allows
to commits at this pace. In turns: the hub and the bare path, each closed and then at half of what
the hub has carried.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.limits.path.worker import TABLE, URL
from benchmarks.scale.hubs import hello_of
from benchmarks.targets.goals import figure_of
from shardrt.bench.bench import Bench
from shardrt.bench.errors import HostFailed
from shardrt.bench.figures import machine, versions
from shardrt.bench.loops import RunOne
from shardrt.bench.measuring import prepared, progress_bars
from shardrt.bench.metering import CpuMeter, FindRoles, this_process
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import PostgresStats
from shardrt.bench.results import spread
from shardrt.bench.stores import store
from shardrt.links.base import Link
from shardrt.links.unix import Dialer

if TYPE_CHECKING:
    from shardrt.bench.hosts import Host

WORKERS = 2
PARTITIONS = 8 * WORKERS
START_S_MAX = 20.0
QUICKER = 5
"""So many times more instances of the bare path under full load, so that it lasts as long."""
ENDED = "a worker of the bare path has ended"
HUB, BARE = "hub", "bare"
FIGURES = {
    "hello per s": "instances_per_s",
    "p50 ms": "latency_ms.p50",
    "p99 ms": "latency_ms.p99",
    "CPU µs per hello": "cpu_us_per_instance.total",
    "commits per hello": "store_per_instance.commits",
}
Rounds = dict[tuple[str, str], list[dict[str, Any]]]
"""(load, subject) → its figures in each round."""


class Caller:
    """A client at one end of the links to all workers."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._is_over = False

    def accept(self, link: Link) -> "Caller":
        self.links.append(link)
        return self

    def on_messages(self, numbers: list[int]) -> None:
        for number in numbers:
            self._waiting.pop(number).set_result(None)

    def on_closed(self) -> None:
        self._is_over = True
        for ended in self._waiting.values():
            if not ended.done():
                ended.set_exception(HostFailed(ENDED))

    async def run(self, number: int) -> None:
        """Run one, in the worker whose turn it is. Raises `HostFailed` once one has ended."""
        if self._is_over:
            raise HostFailed(ENDED)
        self._waiting[number] = ended = asyncio.get_running_loop().create_future()
        self.links[number % WORKERS].send(number)
        await ended


@dataclass(frozen=True)
class Subject:
    """What is measured: how to run one, and the accounting around it."""

    bench: Bench
    run_one: RunOne

    async def measured(self, n: int, rate: float | None) -> dict[str, Any]:
        self.bench.options = replace(self.bench.options, n=n, rate=rate)
        self.bench.figures.clear()
        await self.bench.load(self.run_one)
        return dict(self.bench.figures)


@asynccontextmanager
async def hub(options: Options) -> AsyncIterator[Subject]:
    """Yield a hub with a Postgres of its own."""
    async with prepared(options) as bench:
        yield Subject(bench, hello_of(bench.client))


@asynccontextmanager
async def bare_path(options: Options, url: str) -> AsyncIterator[Subject]:
    """Yield workers that commit to a database, in which there must be no table of theirs."""
    async with AsyncExitStack() as stack:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        paths = [f"{directory}/{number}" for number in range(WORKERS)]
        workers = [
            stack.enter_context(worker(path, number, url)) for number, path in enumerate(paths)
        ]
        caller = Caller()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        dialers = [tasks.create_task(Dialer(path, int, caller.accept).run()) for path in paths]
        for dialer in dialers:
            stack.callback(dialer.cancel)
        async with asyncio.timeout(START_S_MAX):
            while len(caller.links) < WORKERS:
                if any(each.poll() is not None for each in workers):
                    raise HostFailed(ENDED)
                await asyncio.sleep(0.05)
        postgres = stack.enter_context(PostgresStats(url))
        progress = stack.enter_context(progress_bars())
        roles: FindRoles = lambda _: {each.pid: "worker" for each in workers}  # noqa: E731
        meter = CpuMeter([this_process("client"), roles, postgres.roles])
        # There is no host of ours, and nobody asks for it.
        bench = Bench(cast("Host", None), options, meter, postgres, url, progress)
        yield Subject(bench, caller.run)


@contextlib.contextmanager
def worker(path: str, number: int, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.limits.path.worker", path, str(number)]
    process = subprocess.Popen(command, env=os.environ | {URL: url})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def measure(options: Options, rounds: int) -> Rounds:
    """Return what each did in each round."""
    found: Rounds = {}
    with store(None) as url:
        async with hub(options) as ours, bare_path(options, url) as bare:
            # The one first, then the other: who is first finds another minute of the machine.
            order = [(HUB, ours), (BARE, bare)]
            for _ in range(rounds):
                for who, subject in order:
                    n = options.n * (QUICKER if who == BARE else 1)
                    figures = await subject.measured(n, None)
                    found.setdefault(("full", who), []).append(figures)
                rate = found["full", HUB][-1]["instances_per_s"] / 2
                for who, subject in order:
                    figures = await subject.measured(options.n, rate)
                    found.setdefault(("half", who), []).append(figures)
                order.reverse()
    return found


def table_of(found: Rounds) -> Table:
    """Return each figure of both, and the median of the hub's as so many of the bare path's."""
    table = Table(box=None)
    for title in ("load", "", "hub", "bare path", "ratio"):
        table.add_column(title, justify="left" if title in {"load", ""} else "right")
    for load in dict.fromkeys(load for load, _ in found):
        for title, name in FIGURES.items():
            values = [[figure_of(run, name) for run in found[load, who]] for who in (HUB, BARE)]
            table.add_row(load, title, *(str(spread(each)) for each in values), ratio_of(*values))
    return table


def ratio_of(ours: Sequence[float], bare: Sequence[float]) -> str:
    """Return the median of the ratios within each round."""
    return f"{statistics.median(x / y for x, y in zip(ours, bare, strict=True)):.2f}"


@click.command()
@click.option("--n", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--concurrency", type=click.IntRange(1), default=1_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="In turns.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add a line.")
def main(*, n: int, concurrency: int, rounds: int, out: Path | None) -> None:
    """Compare the hub with the bare path, at full load and at half."""
    options = Options(
        n=n,
        concurrency=concurrency,
        warmup=n // 10,
        partitions=PARTITIONS,
        shards=WORKERS,
    )
    found = uvloop.run(measure(options, rounds))
    Console(width=100).print(table_of(found))
    if out is not None:
        runs = [{"load": load, "subject": who, "runs": runs} for (load, who), runs in found.items()]
        line = {"measured": "path", "n": n, "runs": runs}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"machine": machine(), "versions": versions()}) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.limits.path")
