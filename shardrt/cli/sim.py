"""``shardrt sim``: simulated clusters by seed, for whoever works on shardrt itself."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from shardrt.cli.client import EXIT_FAILED

if TYPE_CHECKING:
    from shardrt.testing.sim.run import Report

BAR_SEEDS_MIN = 20
"""So many seeds at least make a progress bar."""


def _range(_ctx: click.Context, _param: click.Parameter, value: str | None) -> range | None:
    """Return the seeds of ``a-b``, both included."""
    if value is None:
        return None
    first, _, last = value.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise click.BadParameter(f"{value!r} is not a range of seeds such as 0-499")
    return range(int(first), int(last) + 1)


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Run this one.")
@click.option("--seeds", metavar="A-B", callback=_range, help="Run all of these.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: os.cpu_count() or 1,
    show_default="one per core",
    help="How many run at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per seed.")
@click.option("--trace", is_flag=True, help="Print what happened, step by step (with --seed).")
def sim(seed: int | None, seeds: range | None, jobs: int, as_json: bool, trace: bool) -> None:
    """Simulate whole clusters under faults, and check what shardrt promises.

    Everything follows from the seed, so a failure can be seen again. Exits with 1 if a promise
    was broken.
    """
    from shardrt.testing.sim.sweep import sweep  # noqa: PLC0415 - see cli/__init__

    if (seed is None) == (seeds is None):
        raise click.UsageError("give either --seed or --seeds")
    if trace and seed is None:
        raise click.UsageError("--trace needs --seed")
    wanted = seeds if seeds is not None else range(seed or 0, (seed or 0) + 1)
    has_bar = len(wanted) >= BAR_SEEDS_MIN and not as_json and sys.stderr.isatty()
    bad = 0
    facts: dict[str, int] = {}
    with click.progressbar(
        sweep(wanted, jobs, keep_trace=trace),
        length=len(wanted),
        file=sys.stderr,
        hidden=not has_bar,
    ) as reports:
        for report in reports:
            bad += not report.is_good
            facts = {name: facts.get(name, 0) + value for name, value in report.facts.items()}
            if as_json:
                click.echo(json.dumps(asdict(report), default=str))
            elif seeds is None or not report.is_good:
                _print(report)
    if seeds is not None and not as_json:
        told = ", ".join(f"{value} {name}" for name, value in facts.items())
        click.echo(f"{len(wanted)} seeds, {bad} bad: {told}")
    if bad:
        sys.exit(EXIT_FAILED)


def _print(report: Report) -> None:
    click.echo(f"seed {report.seed}: {report.plan}")
    for at_s, *what in report.trace:
        click.echo(f"  {at_s:>12} {' '.join(map(str, what))}")
    told = ", ".join(f"{value} {name}" for name, value in report.facts.items())
    click.echo(f"  {report.virtual_s:.1f} s of virtual time: {told}; run {report.fingerprint}")
    for each in report.violations:
        click.echo(f"  {each.invariant} is broken at {each.at_s:.6f}: {each.text}")
    if not report.violations:
        click.echo("  nothing is wrong")
