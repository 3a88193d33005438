"""What a journal record costs the database and a bare client, with none of the runtime.

    python -m benchmarks.limits.records [--values 4,16,64,128] [--json FILE]

The same steps in each commit, in records of more and more partitions: what grows is the price of
more rows, and of compressing less (records of more than 2 kB are). A process appends to the store
back to back; each number of partitions has a hub, and a Postgres with fsync on, of its own. In
turns; of each figure the median over the rounds.
"""

import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console

from benchmarks.limits.journals import Journals
from benchmarks.scale.turns import Figures, Load, in_turns
from benchmarks.scale.verdicts import Row, table_of
from shardrt.bench.figures import machine, versions
from shardrt.bench.metering import CpuMeter, this_process
from shardrt.bench.postgres_stats import PostgresStats
from shardrt.bench.stores import store
from shardrt.store.postgres.store import PostgresStore

WARM_UP = 50
WIDTH = 200
ROLES = {"client": "client", "backends": "postgres backends"}
"""Column → role of its processes."""


@dataclass(frozen=True)
class Size:
    """What is committed."""

    steps: int
    """In each commit, whatever the number of its records."""
    step_bytes: int
    commits: int
    """In a round."""
    rounds: int


async def measure(
    size: Size, values: Sequence[int], url: str | None = None, *, unsafe: bool = False
) -> list[Row]:
    """Return a row for each number of partitions.

    Args:
        size: what is committed.
        values: numbers of partitions, ascending.
        url: a Postgres on this machine; without one each hub has a throw-away one.
        unsafe: accept settings of it with which commits can be lost.
    """

    def row(partitions: int, figures: Figures) -> Row:
        return costs(size, partitions, figures)

    hubs = {value: appending(size, value, url, unsafe=unsafe) for value in values}
    rows = await in_turns(size.rounds, hubs, row, "us_per_step")
    return [
        row | {f"{name}_us_per_further_record": further(size, shorter, row, name) for name in ROLES}
        for shorter, row in zip([None, *rows], rows, strict=False)
    ]


@asynccontextmanager
async def appending(
    size: Size, partitions: int, url: str | None, *, unsafe: bool
) -> AsyncIterator[Load]:
    """Yield what commits to so many partitions of a hub that has no others."""
    with store(url) as own, PostgresStats(own) as stats:
        hub = PostgresStore(own, unsafe=unsafe)
        await hub.open()
        try:
            await hub.create(partitions)
            journals = Journals(hub, partitions, size.steps // partitions * size.step_bytes)
            await journals.claim()
            meter = CpuMeter([this_process("client"), stats.roles])

            async def load() -> Figures:
                await journals.append(WARM_UP)
                before = stats.read()
                meter.start()
                start_s = time.perf_counter()
                await journals.append(size.commits)
                seconds = time.perf_counter() - start_s
                meter.read()
                written = stats.read() - before
                await journals.cut()
                return {"seconds": seconds, "cpu_us": meter.cpu_us(), "wal": written.wal_bytes}

            yield load
        finally:
            await hub.close()


def costs(size: Size, partitions: int, figures: Figures) -> Row:
    steps, records = size.commits * size.steps, size.commits * partitions
    row: Row = {
        "partitions": partitions,
        "steps_per_record": size.steps // partitions,
        "commits_per_s": round(size.commits / figures["seconds"], 1),
        "steps_per_s": round(steps / figures["seconds"]),
    }
    used = {name: figures["cpu_us"][role] for name, role in ROLES.items()}
    for name, us in used.items():
        row |= {f"{name}_us_per_record": us / records, f"{name}_us_per_step": us / steps}
    row["us_per_step"] = round(sum(used.values()) / steps, 3)
    return row | {"wal_bytes_per_step": figures["wal"] / steps}


def further(size: Size, fewer: Row | None, more: Row, name: str) -> float | None:
    """Return what a record costs beyond those of a commit of fewer: the bytes are the same."""
    if fewer is None:
        return None
    us = ((more[f"{name}_us_per_step"] or 0) - (fewer[f"{name}_us_per_step"] or 0)) * size.steps
    return round(us / ((more["partitions"] or 0) - (fewer["partitions"] or 0)), 2)


@click.command()
@click.option("--values", default="4,16,64,128", show_default=True, help="Partitions.")
@click.option(
    "--steps", type=click.IntRange(1), default=128, show_default=True, help="In a commit."
)
@click.option("--step-bytes", type=click.IntRange(1), default=400, show_default=True)
@click.option(
    "--commits", type=click.IntRange(1), default=2_000, show_default=True, help="In a round."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="In turns.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add a line.")
def main(*, values: str, out: Path | None, **sizes: int) -> None:
    """Tell what a record costs, over numbers of partitions."""
    size = Size(**sizes)
    numbers = sorted({int(each) for each in values.split(",")})
    if any(size.steps % number for number in numbers):
        raise click.UsageError(f"--values must divide the {size.steps} steps of a commit")
    rows = uvloop.run(measure(size, numbers))
    Console(width=WIDTH).print(table_of(rows))
    if len(rows) > 1:
        each = {name: further(size, rows[0], rows[-1], name) for name in ROLES}
        print(
            f"a further record costs the client {each['client']} µs and the database's backends"
            f" {each['backends']} µs ({numbers[-1]} in a commit against {numbers[0]})"
        )
    sys.stdout.flush()
    if out is not None:
        facts = {"machine": machine(), "versions": versions()}
        result = {"measured": "records", **sizes, "rows": rows} | facts
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.limits.records")
