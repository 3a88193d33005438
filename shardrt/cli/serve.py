"""``shardrt serve``: one host, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from shardrt.config import load
from shardrt.errors import ConfigInvalid, ShardrtError
from shardrt.host.child import loop_factory
from shardrt.host.logs import log_to_stderr
from shardrt.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from shardrt.config import Settings

EXIT_FAILED = 1
EXIT_USAGE = 2


@click.command()
@click.option("--app", metavar="MODULE:ATTRIBUTE", help="What to serve [default: the samples].")
@click.option("--shards", type=int, help="Worker processes [default: one per core].")
@click.option("--store", metavar="URL", help="sqlite:///file or postgresql://… .")
@click.option("--host", "bind", metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=int, help="Port for everything; 0 takes a free one.")
@click.option("--advertise", metavar="URL", help="Where other hosts and clients reach this one.")
@click.option("--host-id", metavar="ID", help="Name of this host, unique in its hub.")
@click.option("--partitions", type=int, help="Partitions of a new hub; fixed from then on.")
@click.option("--gateways", type=int, help="Processes that speak to clients.")
@click.option("--token-file", metavar="FILE", help="File of tokens that clients need.")
@click.option("--tls-cert", metavar="FILE", help="Certificate in PEM: serve https.")
@click.option("--tls-key", metavar="FILE", help="Its key in PEM.")
@click.option("--ca-file", metavar="FILE", help="Authorities by which hosts are trusted.")
@click.option("--insecure", is_flag=True, help="Serve others than this machine without a token.")
@click.option(
    "--config",
    envvar="SHARDRT_CONFIG",
    type=click.Path(dir_okay=False),
    help="A TOML file; options and SHARDRT_… variables win over it.",
)
def serve(config: str | None, *, insecure: bool, **options: object) -> None:
    """Run a host: its supervisor, shards, and gateways.

    More hosts on the same store make a cluster. Prints one line with the URL when everything
    serves. Ctrl-C or SIGTERM drains and ends; a second one does not wait.
    """
    try:
        settings = load(config, environ=os.environ, overrides=overrides(options, insecure))
        drained = run(settings)
    except ShardrtError as error:
        click.echo(f"shardrt: {error}", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, ConfigInvalid) else EXIT_FAILED)
    sys.exit(0 if drained else EXIT_FAILED)


def overrides(options: dict[str, object], insecure: bool) -> dict[str, object]:
    """Return the options as settings."""
    keys = {"store": "store.url", "partitions": "hub.partitions", "ca_file": "host.tls_ca"}
    given = {keys.get(name, f"host.{name}"): value for name, value in options.items()}
    if insecure:
        given["host.open_access"] = True
    return given


def run(settings: Settings) -> bool:
    """Serve; return whether everything was drained in the end."""
    log_to_stderr("supervisor", settings.log, host_id=settings.host.host_id)
    # Until it serves, only what went wrong: a start that fails ends with one clear line.
    logging.getLogger().setLevel(logging.WARNING)
    settings.check_files()  # complains now rather than in a child
    announce = partial(_announce, level=settings.log.level.upper())
    supervisor = Supervisor(settings, import_paths=[os.getcwd()], announce=announce)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(supervisor.run())


def _announce(line: str, *, level: str) -> None:
    """Print at once, also into a pipe, and from now on log every change of state."""
    click.echo(line)
    sys.stdout.flush()
    logging.getLogger().setLevel(level)
