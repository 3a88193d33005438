"""Run shardrt and its peers in turn, so that a slow minute of the machine hits all of them."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from shardrt.bench import processes
from shardrt.bench.measuring import measure
from shardrt.bench.metering import CpuMeter, FindRoles
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import PostgresStats
from shardrt.bench.processes import Process
from shardrt.bench.results import spread
from shardrt.testing.postgres import PostgresServer

HERE = Path(__file__).parent
HOME = Path(os.environ.get("SHARDRT_PEERS") or HERE.parents[1] / ".peers")
PYTHON = HOME / "venv" / "bin" / "python"
RESTATE = HOME / "npm" / "node_modules" / ".bin" / "restate-server"
READ_INTERVAL_S = 1.0
CONCURRENCY = 3000
"""The best for us of 1,000, 2,000 and 3,000, as the peers' own settings are the best found."""
PARTITIONS = 16
"""Eight for each shard, found best where throughput counts."""


class PeerFailed(Exception):
    """A peer could not be measured; the text says why."""


@dataclass(frozen=True)
class Measured:
    """One run."""

    per_s: float
    cpu_ms: float
    """Per instance, of all processes."""
    alone_p50_ms: float


def shardrt_run(n: int, alone: int) -> Measured:
    busy = asyncio.run(measure("hello", options(n, CONCURRENCY)))["figures"]
    single = asyncio.run(measure("hello", options(alone, 1)))["figures"]
    cpu_ms = busy["cpu_us_per_instance"]["total"] / 1000
    return Measured(busy["instances_per_s"], cpu_ms, single["latency_ms"]["p50"])


def options(n: int, concurrency: int) -> Options:
    return Options(
        n=n, concurrency=concurrency, warmup=n // 10, mode="serve", partitions=PARTITIONS
    )


def dbos_run(n: int, alone: int) -> Measured:
    with PostgresServer() as server, PostgresStats(server.dsn) as postgres:
        return drive("dbos_hello", n, alone, [postgres.roles], DATABASE_URL=server.dsn)


def restate_run(n: int, alone: int) -> Measured:
    if not RESTATE.exists():
        raise PeerFailed("its server is not installed: run benchmarks/peers/setup.sh")
    return drive("restate_hello", n, alone, [], RESTATE_SERVER=str(RESTATE))


def drive(driver: str, n: int, alone: int, roles: list[FindRoles], **variables: str) -> Measured:
    """Run a driver in the environment of the peers, and count CPU while it measures."""
    if not PYTHON.exists():
        raise PeerFailed("it is not installed: run benchmarks/peers/setup.sh")
    process = subprocess.Popen(
        [str(PYTHON), str(HERE / f"{driver}.py"), "--n", str(n), "--alone", str(alone)],
        env=os.environ | variables | {"PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None, "asked for a pipe"
    meter = CpuMeter([family_of(process.pid), *roles])
    said: dict[str, dict[str, float]] = {}
    over = threading.Event()
    reader = threading.Thread(target=keep_reading, args=(meter, over))
    for line in process.stdout:
        word, _, values = line.strip().partition(" ")
        if word == "begin":
            meter.start()
            reader.start()
        elif word == "end":
            over.set()
            reader.join()
            meter.read()
        if values:
            said[word] = json.loads(values)
    over.set()
    if process.wait() != 0 or not {"end", "alone"} <= set(said):
        raise PeerFailed(f"{driver} ended with exit code {process.returncode}")
    done, seconds = said["end"]["n"], said["end"]["seconds"]
    cpu_ms = sum(meter.cpu_us().values()) / done / 1000
    return Measured(done / seconds, cpu_ms, said["alone"]["p50_ms"])


def keep_reading(meter: CpuMeter, over: threading.Event) -> None:
    """Read often: what a process has used is lost when it ends."""
    while not over.wait(READ_INTERVAL_S):
        meter.read()


def family_of(pid: int) -> FindRoles:
    def find(seen: dict[int, Process]) -> dict[int, str]:
        return {each.pid: "peer" for each in processes.descendants(seen, pid)}

    return find


SYSTEMS: dict[str, tuple[Callable[[int, int], Measured], int, int]] = {
    "shardrt": (shardrt_run, 20_000, 500),
    "restate": (restate_run, 4_000, 200),
    "dbos": (dbos_run, 900, 100),
}
"""How to run each, and so many instances take each about ten seconds on two slow cores."""


@click.command()
@click.argument("systems", nargs=-1, type=click.Choice(sorted(SYSTEMS)))
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--scale", type=float, default=1.0, help="Of the number of instances.")
def main(systems: tuple[str, ...], rounds: int, scale: float) -> None:
    """Measure SYSTEMS (all, unless named) in turn and print a table."""
    found: dict[str, list[Measured]] = {}
    for number in range(rounds):
        for name in systems or SYSTEMS:
            run, n, alone = SYSTEMS[name]
            try:
                measured = run(max(30, int(n * scale)), max(10, int(alone * scale)))
            except PeerFailed as error:
                click.echo(f"{name}: {error}", err=True)
                continue
            click.echo(f"round {number + 1} {name}: {measured}", err=True)
            found.setdefault(name, []).append(measured)
    if not found:
        sys.exit(1)
    Console().print(table_of(found))


def table_of(found: dict[str, list[Measured]]) -> Table:
    """Return medians with their range, and how the others' medians compare with the first's."""
    table = Table(box=None)
    for title in ("system", "hello/s", "ratio", "CPU ms each", "ratio", "alone p50 ms", "ratio"):
        table.add_column(title)
    columns = ("per_s", "cpu_ms", "alone_p50_ms")
    spreads = {
        name: [spread([getattr(run, column) for run in runs]) for column in columns]
        for name, runs in found.items()
    }
    first = next(iter(spreads.values()))
    for name, of_one in spreads.items():
        cells = [name]
        for mine, base in zip(of_one, first, strict=True):
            cells += [str(mine), f"{mine.median / base.median:.3g}"]
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.peers")
