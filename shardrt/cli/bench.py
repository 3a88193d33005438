"""``shardrt bench``: load-test a hub, draw the results, compare two of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from shardrt.bench.catalog import WORKLOADS, Workload
from shardrt.bench.errors import RunFailed
from shardrt.bench.measuring import measure
from shardrt.bench.options import Mode, Options
from shardrt.bench.results import read
from shardrt.bench.tables import comparison, summary
from shardrt.cli.client import DEFAULT_URL, EXIT_FAILED, EXIT_USAGE, fail, print_table
from shardrt.errors import (
    ConfigInvalid,
    ConnectionLost,
    EntityNotRegistered,
    OrchestratorNotRegistered,
    ShardrtError,
)
from shardrt.host.child import loop_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Group

WARMUP_SHARE = 10
WARMUP_MAX = 2000
NOT_SERVED = "serve it with `shardrt serve --app shardrt.bench:app`, or include it in your app"


@click.group()
def bench() -> None:
    """Load-test a hub. Every answer is checked; a wrong one ends the run with exit code 1.

    Against a host that runs (`shardrt serve --app shardrt.bench:app`), one started for the
    run (--serve, with a throw-away Postgres unless --store says otherwise), or a runtime in
    this process (--embedded).
    """


def options_for(workload: Workload) -> Iterator[Callable[[Any], Any]]:
    """Yield the options that a workload takes, in the order of the help."""
    yield click.option("--n", type=click.IntRange(1), default=workload.n, show_default=True)
    for name, size in workload.sizes.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(size.default, bool):
            yield click.option(option, is_flag=True, help=size.help)
            continue
        yield click.option(
            option,
            type=click.IntRange(1) if isinstance(size.default, int) else click.FloatRange(0),
            default=size.default,
            show_default=True,
            help=size.help,
        )
    if workload.has_loop:
        yield from LOOP_OPTIONS
    if "url" in workload.modes:
        yield from HOST_OPTIONS
    else:
        yield SERVE  # understood, and not needed
    yield from RUN_OPTIONS


LOOP_OPTIONS = (
    click.option("--concurrency", type=click.IntRange(1), help="Closed loop: so many in flight."),
    click.option(
        "--rate", type=click.FloatRange(0, min_open=True), help="Open loop: starts per second."
    ),
    click.option(
        "--warmup", type=click.IntRange(0), help="Run before [default: a tenth, 2000 at most]."
    ),
)
SERVE = click.option("--serve", is_flag=True, help="Start a host for the run.")
HOST_OPTIONS = (
    click.option("--url", envvar="SHARDRT_URL", default=DEFAULT_URL, show_default=True),
    click.option("--token", envvar="SHARDRT_TOKEN", help="If the host asks for one."),
    click.option("--embedded", is_flag=True, help="Use a runtime in this process."),
    SERVE,
)
RUN_OPTIONS = (
    click.option("--shards", type=click.IntRange(1), default=2, show_default=True),
    click.option("--partitions", type=click.IntRange(1), default=32, show_default=True),
    click.option(
        "--store", envvar="SHARDRT_BENCH_STORE", help="Store URL [default: a throw-away Postgres]."
    ),
    click.option("--tracing", type=click.FloatRange(0, 1), help="Trace this share of instances."),
    click.option("--runs", type=click.IntRange(1), default=1, help="Do it all so often."),
    click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per run."),
    click.option(
        "--out", type=click.Path(dir_okay=False, path_type=Path), help="Add the lines to a file."
    ),
)


def command_of(name: str, workload: Workload) -> click.Command:
    """Return the command that runs a workload."""

    def command(*, runs: int, as_json: bool, out: Path | None, **given: Any) -> None:
        options = options_of(workload, given)
        results = []
        for _ in range(runs):
            results.append(run(name, options))
            line = json.dumps(results[-1])
            if as_json:
                click.echo(line)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        if not as_json:
            show(summary(results))

    for add in reversed(list(options_for(workload))):
        command = add(command)
    return click.command(name, help=workload.about)(command)


def options_of(workload: Workload, given: dict[str, Any]) -> Options:
    """Return the options of a run."""
    warmup = given.get("warmup")
    if warmup is None:
        warmup = min(given["n"] // WARMUP_SHARE, WARMUP_MAX) if workload.has_loop else 0
    return Options(
        n=given["n"],
        concurrency=given.get("concurrency") or workload.concurrency,
        rate=given.get("rate"),
        warmup=warmup,
        sizes={name: given[name] for name in workload.sizes},
        mode=mode_of(workload, given),
        shards=given["shards"],
        partitions=given["partitions"],
        store=given["store"],
        url=given.get("url", ""),
        token=given.get("token"),
        tracing=given["tracing"],
    )


def mode_of(workload: Workload, given: dict[str, Any]) -> Mode:
    """Return where to run; a workload that kills its host starts one without being told."""
    if "url" not in workload.modes:
        return "serve"
    if given["serve"] and given["embedded"]:
        raise click.UsageError("--serve and --embedded exclude each other")
    return "serve" if given["serve"] else "embedded" if given["embedded"] else "url"


def run(name: str, options: Options) -> dict[str, Any]:
    """Run a workload; a failure ends the program with one line."""
    results: dict[str, Any] = {}
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            results = runner.run(measure(name, options))
    except* (RunFailed, ShardrtError, OSError) as group:
        complain(first_of(group))
    return results


def complain(error: BaseException) -> NoReturn:
    """End the program with one line."""
    if isinstance(error, (OrchestratorNotRegistered, EntityNotRegistered)):
        fail(f"{error}; {NOT_SERVED}")
    if isinstance(error, ConnectionLost):
        fail(f"{error}; --serve starts a host for the run")
    fail(str(error), EXIT_USAGE if isinstance(error, ConfigInvalid) else EXIT_FAILED)


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def show(tables: list[Group]) -> None:
    for table in tables:
        print_table(table)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@bench.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def report(files: tuple[Path, ...], out: Path) -> None:
    """Draw throughput and latency of the runs in FILES as PNG into a directory."""
    try:
        from shardrt.bench.plots import draw  # noqa: PLC0415 - matplotlib takes a second

        for file in draw(read(files), out):
            click.echo(file)
    except RunFailed as error:
        fail(str(error))


@bench.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
def compare(a: Path, b: Path) -> None:
    """Compare the runs in file A with those in file B: medians, ranges, ratios."""
    try:
        show(comparison(read([a]), read([b])))
    except RunFailed as error:
        fail(str(error))


for workload_name, each in WORKLOADS.items():
    bench.add_command(command_of(workload_name, each))
