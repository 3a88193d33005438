"""Where the samples' commands find a client: a running host, or a Runtime of their own."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn, TypeVar

import click

from shardrt import Client, Runtime
from shardrt.samples import app

Command = TypeVar("Command", bound=Callable[..., object])


def hosting_options(command: Command) -> Command:
    """Add `--url` and `--store` to a click command."""
    url = click.option("--url", envvar="SHARDRT_URL", help="Use the host that runs there.")
    store = click.option(
        "--store",
        envvar="SHARDRT_STORE",
        default="memory://",
        show_default=True,
        help="Without --url: where the runtime in this process keeps its state.",
    )
    return url(store(command))


@asynccontextmanager
async def connected(url: str | None, store: str) -> AsyncIterator[Client]:
    """Yield a client of the host at `url`, or of a runtime that lives as long as the block."""
    if url is None:
        async with Runtime(app, store=store) as runtime:
            yield runtime.client
        return
    client = await Client.connect(url)
    try:
        yield client
    finally:
        await client.close()


def fail(message: str) -> NoReturn:
    """End the command with one line and exit code 1."""
    click.echo(f"error: {message}", err=True)
    sys.exit(1)
