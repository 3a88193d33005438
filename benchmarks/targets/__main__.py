"""Run what the targets are about, in turn, and compare.

    python -m benchmarks.targets [--rounds 3] [--only full]... [--scale 1.0] [--partitions N]
        [--json FILE]

Each run has a Postgres of its own with fsync on; load, host and database share the machine. `half`
offers half of what `full` carried in the same round.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.targets.goals import RUNS, Run, rows_of, table_of
from shardrt.bench.measuring import measure
from shardrt.host.child import loop_factory

N_MIN = 20


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice([*RUNS]), help="Default: all.")
@click.option("--scale", type=float, default=1.0, help="Of the number of instances.")
@click.option("--partitions", type=click.IntRange(1), help="Default: what is best for each.")
@click.option("--store", help="Store URL, with --partitions [default: a throw-away Postgres].")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add lines.")
def main(
    *,
    rounds: int,
    only: tuple[str, ...],
    scale: float,
    partitions: int | None,
    store: str | None,
    out: Path | None,
) -> None:
    """Measure each so often, and print a table."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for name in only or RUNS:
            run = RUNS[name]
            if partitions is not None:
                run = replace(run, options=replace(run.options, partitions=partitions))
            if run.rate_of and run.rate_of not in found:
                raise click.UsageError(f"{name} needs {run.rate_of} before it")
            result = measured(run, found, scale, store)
            found.setdefault(name, []).append(result["figures"])
            click.echo(f"{name}: {result['figures']}", err=True)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"run": name} | result) + "\n")
    Console(width=100).print(table_of(rows_of(found)))


def measured(
    run: Run, found: dict[str, list[dict[str, Any]]], scale: float, store: str | None
) -> dict[str, Any]:
    n = max(N_MIN, int(run.options.n * scale))
    rate = found[run.rate_of][-1]["instances_per_s"] / 2 if run.rate_of else None
    warmup = int(run.options.warmup * scale)
    options = replace(run.options, n=n, rate=rate, warmup=warmup, store=store)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(measure(run.workload, options))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.targets")
