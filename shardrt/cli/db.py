"""``shardrt db``: what a store holds, its schema, and moving it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.verify import check_exists
from shardrt.config import load
from shardrt.errors import ConfigInvalid, HubMismatch, ShardrtError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from shardrt.store.base import Store


@click.group()
def db() -> None:
    """Look at stores, upgrade and move them."""


def _store_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--store", metavar="URL", help="As for `shardrt serve`.")(command)
    return click.option("--config", envvar="SHARDRT_CONFIG", type=click.Path(dir_okay=False))(
        command
    )


@db.command()
@_store_options
def status(store: str | None, config: str | None) -> None:
    """Show a hub: its schema, partitions, hosts and instances. Changes nothing."""

    async def work(opened: Store, url: str) -> None:
        from shardrt.store.base import Filter  # noqa: PLC0415 - see cli/__init__
        from shardrt.store.schema import schema_of  # noqa: PLC0415

        found, known = await schema_of(opened)
        view = await opened.view()
        live = [host.host_id for host in view.hosts if host.expires_at > view.now]
        counts = await opened.count(Filter())
        click.echo(f"store: {url}")
        click.echo(f"schema: {found}" + _advice(found, known))
        click.echo(f"partitions: {len(view.partitions)}")
        click.echo(f"hosts: {', '.join(live) or 'none'}")
        for name, count in sorted(counts.items()):
            click.echo(f"{name}: {count}")

    _run(store, config, work)


def _advice(found: int, known: int) -> str:
    if found < known:
        return f", this release has {known}: `shardrt db upgrade`, or start a host"
    return f", newer than {known}, which this release knows" if found > known else ""


@db.command()
@_store_options
def upgrade(store: str | None, config: str | None) -> None:
    """Bring the schema of a hub up to date, as a host does when it starts.

    Hosts of the release before may go on serving.
    """

    async def work(opened: Store, url: str) -> None:
        from shardrt.store.schema import schema_of  # noqa: PLC0415 - see cli/__init__

        before, _ = await schema_of(opened)
        await opened.create(len((await opened.view()).partitions))
        after, _ = await schema_of(opened)
        click.echo(f"{url}: schema {before}" + (f" → {after}" if after != before else ", as it is"))

    _run(store, config, work)


def _run(
    given: str | None, config: str | None, work: Callable[[Store, str], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        from shardrt.store.factory import make_store  # noqa: PLC0415 - see cli/__init__

        url = load(config, environ=os.environ, overrides={"store.url": given}).store.url
        if url.startswith("memory:"):
            raise ConfigInvalid("memory:// is gone with its process")
        check_exists(url)
        # Whether it could lose data is not the question here.
        opened = make_store(url, unsafe=True)
        await opened.open()
        try:
            await work(opened, opened.url_masked)
        finally:
            await opened.close()

    _guarded(main())


@db.command()
@click.option("--from", "source", metavar="URL", required=True, help="sqlite:///…")
@click.option("--to", "target", metavar="URL", required=True, help="postgresql://…")
@click.option("--unsafe", is_flag=True, help="Accept a server that can lose acknowledged data.")
def copy(source: str, target: str, *, unsafe: bool) -> None:
    """Move a hub from an SQLite file to PostgreSQL. Instances go on where they were.

    Stop its host first, then copy, then serve with --store of the new one. The file stays as it
    is: do not serve it any more.
    """

    async def main() -> None:
        from rich.console import Console  # noqa: PLC0415 - see cli/__init__
        from rich.progress import Progress  # noqa: PLC0415

        from shardrt.store.copying import TABLES, copy_hub  # noqa: PLC0415

        for url, scheme in ((source, "sqlite:"), (target, "postgres")):
            if not url.startswith(scheme):
                raise ConfigInvalid("copies go from sqlite:///… to postgresql://…")
        quiet = not sys.stderr.isatty()
        with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
            tasks = {table: bar.add_task(table, total=None) for table in TABLES}

            def progress(table: str, rows: int, total: int) -> None:
                bar.update(tasks[table], advance=rows, total=total)

            sizes = await copy_hub(source, target, unsafe=unsafe, progress=progress)
        for table, (rows, size) in sizes.items():
            click.echo(f"{table}: {rows} rows, {size} bytes")

    _guarded(main())


def _guarded(main: Coroutine[Any, Any, None]) -> None:
    logging.getLogger("shardrt").setLevel(logging.ERROR)
    try:
        asyncio.run(main)
    except ShardrtError as error:
        click.echo(f"shardrt: {error}", err=True)
        sys.exit(2 if isinstance(error, (ConfigInvalid, HubMismatch)) else 1)
