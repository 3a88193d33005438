"""Measure parts, print a table of each, and say what is flat.

    python -m benchmarks.scale [--part shards]... [--values 1,2,4] [--json FILE] [--small]

Without --store every hub has a Postgres of its own with fsync on, else a schema of its own. All on
one machine.
"""

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.scale.parts import PARTS, SMALL, USUAL
from benchmarks.scale.verdicts import said, table_of, verdicts
from shardrt.bench.figures import machine, versions
from shardrt.bench.postgres_stats import split_schema


@click.command()
@click.option(
    "--part", "names", multiple=True, type=click.Choice(list(PARTS)), help="Default: all."
)
@click.option("--values", default="", help="Of the one part, in place of its own: 1,2,4.")
@click.option("--n", type=click.IntRange(1), default=USUAL.n, show_default=True)
@click.option(
    "--rounds", type=click.IntRange(1), default=USUAL.rounds, show_default=True, help="In turns."
)
@click.option("--small", is_flag=True, help="So small that it says nothing: whether it runs.")
@click.option("--store", help="postgresql://… [default: a throw-away one for each hub].")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Add lines.")
def main(
    names: tuple[str, ...],
    values: str,
    *,
    small: bool,
    store: str | None,
    out: Path | None,
    **sizes: Any,
) -> None:
    """Vary what is named, one after the other."""
    if values and len(names) != 1:
        raise click.UsageError("--values belong to one --part")
    if store is not None and not is_divisible(store):
        raise click.UsageError(
            "--store is a postgresql:// URL without a schema: each hub has its own"
        )
    given = tuple(int(each) for each in values.split(",")) if values else ()
    size = (SMALL if small else replace(USUAL, **sizes)).in_store(store)
    for name in names or PARTS:
        part = PARTS[name]
        began_s = time.perf_counter()
        rows = asyncio.run(part.run(size, given or (part.small if small else part.values)))
        found = verdicts(rows, part.flat, part.shares)
        print(f"\n{name}: {part.about}, {time.perf_counter() - began_s:.0f} s")
        Console(width=WIDTH).print(table_of(rows))
        for verdict in found:
            print(said(verdict))
        sys.stdout.flush()
        if out is not None:
            result = {
                "part": name,
                "n": size.n,
                "rounds": size.rounds,
                "rows": rows,
                "verdicts": found,
            }
            facts = {"machine": machine(), "versions": versions()}
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result | facts) + "\n")


def is_divisible(store: str) -> bool:
    """Tell whether each hub gets a part of its own."""
    return store.startswith("postgres") and split_schema(store)[1] is None


WIDTH = 200

if __name__ == "__main__":
    main(prog_name="python -m benchmarks.scale")
