"""``shardrt verify``: whether what a store holds fits together."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from shardrt.config import load
from shardrt.errors import ConfigInvalid, ShardrtError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.host.verifying import Report


@click.command()
@click.option("--store", metavar="URL", help="As for `shardrt serve`.")
@click.option("--config", envvar="SHARDRT_CONFIG", type=click.Path(dir_okay=False))
@click.option("--partition", type=click.IntRange(min=0), help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(store: str | None, config: str | None, partition: int | None, *, as_json: bool) -> None:
    """Check that journals, checkpoints, rows and histories of a hub fit together.

    Only reads, so that hosts may go on serving meanwhile. Exits with 1 if something is damaged.
    """
    # What is damaged is in the report, with what to do about it.
    logging.getLogger("shardrt").setLevel(logging.CRITICAL)
    try:
        settings = load(config, environ=os.environ, overrides={"store.url": store})
        report = _run(settings.store.url, partition, quiet=as_json or not sys.stderr.isatty())
    except ShardrtError as error:
        click.echo(f"shardrt: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigInvalid) else 1)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _print(report)
    sys.exit(1 if report.findings else 0)


def _run(url: str, partition: int | None, *, quiet: bool) -> Report:
    from rich.console import Console  # noqa: PLC0415 - see cli/__init__
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        tasks = {"partitions": bar.add_task("partitions"), "rows": bar.add_task("rows")}

        def progress(what: str, count: int) -> None:
            bar.advance(tasks[what], count)

        def expect(what: str, total: int) -> None:
            bar.update(tasks[what], total=total)

        return asyncio.run(_verify(url, partition, progress, expect))


async def _verify(
    url: str,
    partition: int | None,
    progress: Callable[[str, int], None],
    expect: Callable[[str, int], None],
) -> Report:
    from shardrt.host.verifying import verify as verify_store  # noqa: PLC0415
    from shardrt.store.base import Filter  # noqa: PLC0415
    from shardrt.store.factory import make_store  # noqa: PLC0415

    check_exists(url)
    # Whether it could lose data is not the question here, and nothing is written.
    store = make_store(url, unsafe=True)
    await store.open()
    try:
        count = len((await store.view()).partitions)
        if not count:
            raise ConfigInvalid(f"there is no hub in {store.url_masked}")
        if partition is not None and partition >= count:
            raise ConfigInvalid(f"the hub has partitions 0 to {count - 1}, not {partition}")
        expect("partitions", count)
        expect("rows", sum((await store.count(Filter())).values()))
        return await verify_store(store, only=partition, progress=progress)
    finally:
        await store.close()


def check_exists(url: str) -> None:
    """Keep SQLite from making the file. Raises `ConfigInvalid`."""
    if url.startswith("sqlite:"):
        from shardrt.store.sqlite.store import parse_url  # noqa: PLC0415

        path = parse_url(url)
        if not path.exists():
            raise ConfigInvalid(f"there is no file {path}")


def _print(report: Report) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    counts = (
        f"{report.partitions} partitions, {report.records} records to replay, "
        f"{report.instances} instances, {report.entities} entities, {report.events} events"
    )
    if not report.findings:
        console.print(f"nothing is wrong: {counts}")
        return
    table = Table(box=None)
    for title in ("KIND", "PARTITION", "INSTANCE", "LSN", "WHAT IS WRONG", "WHAT TO DO"):
        table.add_column(title, overflow="fold")
    for each in report.findings:
        lsn = "" if each.lsn is None else str(each.lsn)
        cells = (
            each.kind,
            str(each.partition),
            each.instance_id or "",
            lsn,
            each.text,
            each.advice,
        )
        table.add_row(*map(Text, cells))
    console.print(table)
    console.print(f"{len(report.findings)} findings in {counts}")
