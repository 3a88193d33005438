"""CPU of one `hello` under load, by process and by layer.

    python -m benchmarks.costs [--n 20000] [--concurrency 1000] [--shards 2] [--seconds 10]

First the load alone: CPU by process, as the kernel counts it. Then the same load while py-spy
(`pip install py-spy`) looks at every Python process of the host, and at this one, a hundred times a
second: the share of each layer. Their product is what a layer costs; since sampling slows
everything down, no time is taken from the second run. Postgres is not looked into.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.costs.layers import shares
from benchmarks.scale.hubs import hello_of
from shardrt.bench import processes
from shardrt.bench.bench import Bench
from shardrt.bench.figures import machine, versions
from shardrt.bench.measuring import prepared
from shardrt.bench.metering import host_processes
from shardrt.bench.options import Options

RATE = 100
SAMPLED = ("client", "gateway", "shard")
Shares = dict[str, dict[str, float]]
"""Role → layer → its share of the role's CPU."""


@click.command()
@click.option("--n", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--concurrency", type=click.IntRange(1), default=1_000, show_default=True)
@click.option("--shards", type=click.IntRange(1), default=2, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--store", help="Store URL [default: a throw-away Postgres].")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add a line.")
def main(**given: Any) -> None:
    """Measure, and print what each layer costs."""
    seconds, out = given.pop("seconds"), given.pop("out")
    py_spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if py_spy is None:
        raise click.ClickException("py-spy is not installed: pip install py-spy")
    options = Options(warmup=min(given["n"] // 10, 2000), **given)
    cpu_us, found, per_s = uvloop.run(measure(options, py_spy, seconds))
    rows = rows_of(cpu_us, found)
    Console(width=100).print(table_of(rows))
    print(f"{per_s:,.0f} hello per second, {options.concurrency} in flight")
    if out is not None:
        facts = {"n": options.n, "hello_per_s": per_s, "rows": rows, "cpu_us_per_hello": cpu_us}
        with out.open("a", encoding="utf-8") as file:
            line = facts | {"machine": machine(), "versions": versions()}
            file.write(json.dumps(line) + "\n")


async def measure(
    options: Options, py_spy: str, seconds: int
) -> tuple[dict[str, float], Shares, float]:
    """Return CPU by role, shares of layers, and throughput without sampling."""
    async with prepared(options) as bench:
        await bench.load(hello_of(bench.client), activities=5)
        load = asyncio.create_task(keep_loaded(bench))
        try:
            found = await sample(bench, py_spy, seconds)
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        figures = bench.figures
        return figures["cpu_us_per_instance"], found, figures["instances_per_s"]


async def keep_loaded(bench: Bench) -> None:
    while True:
        await bench.loop("sampling", hello_of(bench.client), bench.options.n)


async def sample(bench: Bench, py_spy: str, seconds: int) -> Shares:
    """Return the shares of layers by role, all processes of a role taken together."""
    served = bench.host.served
    assert served is not None, "a host of its own"
    roles = host_processes(lambda: served.pid)(processes.snapshot()) | {os.getpid(): "client"}
    sampled = {pid: role for pid, role in roles.items() if role in SAMPLED}
    return await asyncio.to_thread(look_into, sampled, py_spy, seconds)


def look_into(roles: Mapping[int, str], py_spy: str, seconds: int) -> Shares:
    """Let py-spy look at all of these at the same time."""
    with tempfile.TemporaryDirectory() as directory:
        runs = {
            pid: subprocess.Popen(
                [
                    *(py_spy, "record", "--pid", str(pid), "--duration", str(seconds)),
                    *("--rate", str(RATE), "--format", "raw", "--full-filenames"),
                    *("--nonblocking", "--output", f"{directory}/{pid}"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for pid in roles
        }
        failed = [roles[pid] for pid, run in runs.items() if run.wait()]
        if failed:
            raise click.ClickException(f"py-spy cannot look into {failed}: it may need root")
        raw: dict[str, str] = {}
        for pid, role in roles.items():
            raw[role] = raw.get(role, "") + Path(directory, str(pid)).read_text()
    return {role: shares(stacks) for role, stacks in sorted(raw.items())}


def rows_of(cpu_us: Mapping[str, float], found: Shares) -> list[dict[str, Any]]:
    """Return what each layer of each process costs per `hello`; what was not sampled as a whole."""
    rows = []
    for role, used in cpu_us.items():
        if role == "total":
            continue
        for layer, share in found.get(role, {"": 1.0}).items():
            rows.append({"process": role, "layer": layer, "us": round(used * share, 1)})
    return rows


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for title in ("process", "layer", "µs per hello", "of all"):
        table.add_column(title, justify="left" if title in {"process", "layer"} else "right")
    total = sum(row["us"] for row in rows)
    for row in rows:
        cells = (row["process"], row["layer"], f"{row['us']:.1f}", f"{row['us'] / total:.0%}")
        table.add_row(*cells)
    table.add_row("total", "", f"{total:.1f}", "100%")
    return table


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.costs")
