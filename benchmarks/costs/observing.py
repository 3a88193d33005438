"""What it costs to be observed: CPU of one `hello` without metrics, with them, and with traces too.

    python -m benchmarks.costs.observing [--mode serve] [--mode embedded] [--rounds 40] [--n 2000]

Machines are faster and slower by the second. So a host of each variant runs all the time, `serve`
with a Postgres of its own, and they take turns with slices of the load, in another order each
round. What a process uses between its slices counts, too: checkpoints, and spans that are sent.
A ratio is that to `metrics` in the same round. Whoever takes the spans is a process of the test,
which is shown but not counted.
"""

import asyncio
import json
import multiprocessing
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.scale.hubs import hello_of
from shardrt.bench.figures import COLLECTOR, cpu_figures, machine, versions
from shardrt.bench.loops import closed_loop
from shardrt.bench.measuring import prepared
from shardrt.bench.options import Mode, Options
from shardrt.config.settings import TracingSettings
from shardrt.host.child import loop_factory

UNMETERED = "benchmarks.costs.unmetered"
BASE = "metrics"
CONCURRENCY: dict[Mode, int] = {"serve": 1000, "embedded": 300}
WARM_UP = 2
"""Rounds that do not count."""
Row = dict[str, Any]


DEFAULTS = TracingSettings()


@dataclass(frozen=True)
class Variant:
    """How a host is observed."""

    tracing: float | None = None
    per_s_max: float = 0.0
    metered: bool = True


VARIANTS = {
    "neither": Variant(metered=False),
    BASE: Variant(),
    "tracing": Variant(DEFAULTS.sample_ratio, DEFAULTS.traces_per_s_max),
    "tracing 0.01": Variant(tracing=0.01),
    "tracing 1.0": Variant(tracing=1.0),
}


@click.command()
@click.option("--mode", "modes", multiple=True, type=click.Choice([*CONCURRENCY]), help="Or both.")
@click.option("--only", multiple=True, type=click.Choice([*VARIANTS]), help=f"Beside {BASE}.")
@click.option("--rounds", type=click.IntRange(1), default=40, show_default=True)
@click.option("--n", type=click.IntRange(1), default=2000, show_default=True, help="Of a slice.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add lines.")
def main(modes: Sequence[Mode], only: Sequence[str], rounds: int, n: int, out: Path | None) -> None:
    """Measure, and print a table for each mode."""
    names = [name for name in VARIANTS if name == BASE or not only or name in only]
    for mode in modes or CONCURRENCY:
        found = measured(mode, names, rounds, n)
        Console(width=120).print(table_of(mode, found))
        if out is not None:
            facts = {"mode": mode, "n": n, "machine": machine(), "versions": versions()}
            with out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(facts | row) + "\n" for row in found)


def measured(mode: Mode, names: Sequence[str], rounds: int, n: int) -> list[Row]:
    """Return what each variant cost in each round."""
    found = []
    store = None if mode == "serve" else "memory://"
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(host(mode, store, name)) for name in names}
        for number in range(-WARM_UP, rounds):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn])[:: 1 if number % 2 else -1]:
                hosts[name].send(n)
                row = hosts[name].recv()
                if number >= 0:
                    found.append({"round": number, "variant": name} | row)
    return found


@contextmanager
def host(mode: Mode, store: str | None, name: str) -> Iterator[Connection]:
    """Yield whom to send a number of instances, and to receive a row from."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # NB: a process each, for what others have imported costs, too.
    process = context.Process(target=run, args=(theirs, mode, store, VARIANTS[name]))
    process.start()
    theirs.close()
    try:
        yield ours
        ours.send(0)
    finally:
        ours.close()
        process.join()


def run(orders: Connection, mode: Mode, store: str | None, variant: Variant) -> None:
    """Have a host, and run slices of the load as told."""
    app = "shardrt.bench:app"
    if not variant.metered:
        import_module(UNMETERED)  # for a runtime in this process
        app = f"{UNMETERED}:app"
    options = Options(
        n=0,
        concurrency=CONCURRENCY[mode],
        warmup=0,
        mode=mode,
        store=store,
        app=app,
        tracing=variant.tracing,
        traces_per_s_max=variant.per_s_max,
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(slices(orders, options))


async def slices(orders: Connection, options: Options) -> None:
    async with prepared(options) as bench:
        run_one, meter = hello_of(bench.client), bench.meter
        meter.start()
        before: dict[str, int] = {}
        while n := await asyncio.to_thread(orders.recv):
            timing = await closed_loop(run_one, n, options.concurrency, lambda: None)
            meter.read()
            used = meter.cpu_us()
            cpu_us = cpu_figures({role: us - before.get(role, 0) for role, us in used.items()}, n)
            orders.send({"hello_per_s": round(n / timing.seconds), "cpu_us": cpu_us})
            before = used


def by_role(row: Row) -> dict[str, float]:
    """Return what the roles cost, all of Postgres taken together."""
    used: dict[str, float] = {}
    for role, us in row["cpu_us"].items():
        name = role.partition(" ")[0]
        used[name] = used.get(name, 0.0) + us
    return used


def ratios(found: Sequence[Row], name: str) -> str:
    """Return total CPU of a variant over that of the base, by rounds: median, and middle half."""
    totals = {(row["round"], row["variant"]): row["cpu_us"]["total"] for row in found}
    each = [totals[key] / totals[key[0], BASE] for key in totals if key[1] == name]
    low, median, high = statistics.quantiles(each * 2, method="inclusive")
    return f"{median:.3f} ({low:.3f}-{high:.3f})"


def table_of(mode: str, found: Sequence[Row]) -> Table:
    """Return medians, and ratios with their spread."""
    costs = [(row["variant"], by_role(row)) for row in found]
    roles = sorted({role for _, used in costs for role in used} - {"total", COLLECTOR})
    table = Table(box=None, title=f"{mode}: CPU µs per hello, median")
    for title in ("", *roles, "total", f"to {BASE} (middle half)", "hello/s", COLLECTOR):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name in VARIANTS:
        rates = [row["hello_per_s"] for row in found if row["variant"] == name]
        if rates:
            us = {
                role: statistics.median(used.get(role, 0.0) for each, used in costs if each == name)
                for role in (*roles, "total", COLLECTOR)
            }
            cells = [f"{us[role]:.1f}" for role in (*roles, "total")]
            ratio, rate = ratios(found, name), f"{statistics.median(rates):,.0f}"
            table.add_row(name, *cells, ratio, rate, f"{us[COLLECTOR]:.1f}")
    return table


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.costs.observing")
