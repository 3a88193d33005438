"""``shardrt export``: instances as files, for ``shardrt replay``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from shardrt.cli.client import Connection, client_command, fail
from shardrt.cli.commands import StatusType

if TYPE_CHECKING:
    from shardrt.client import Client

NAME_CHARS_MAX = 180
"""Of a file, without its suffix: file systems take 255 bytes."""


@click.command()
@click.argument("instance_ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Directory to write to [default: this one].",
)
@click.option("--status", type=StatusType(), multiple=True, help="Can be given several times.")
@click.option("--name", help="Of the orchestrator.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def export(
    connection: Connection,
    instance_ids: tuple[str, ...],
    out: Path,
    status: tuple[str, ...],
    name: str | None,
    limit: int,
) -> None:
    """Write instances with their histories, each to a JSON file of its own.

    These are the given ones, or else the oldest that fulfil the conditions. Payloads are
    written as they are stored: sealed, if the app has a payload codec.
    """
    if bool(instance_ids) == bool(status or name):
        raise click.UsageError("give some IDs, or one of --status --name")

    async def work(client: Client) -> list[str]:
        ids = list(instance_ids) or await _listed(client, status, name, limit)
        return [str(_write(out, each, await client.export(each))) for each in ids]

    try:
        written = connection.run(work)
    except OSError as error:
        fail(f"cannot write: {error}")
    connection.show({"files": written}, "\n".join(written) or "no instances")


async def _listed(
    client: Client, status: tuple[str, ...], name: str | None, limit: int
) -> list[str]:
    ids: list[str] = []
    async for each in client.list(status=status, name=name, page_size=min(limit, 100)):
        ids.append(each.instance_id)
        if len(ids) == limit:
            break
    return ids


def _write(directory: Path, instance_id: str, exported: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{file_name(instance_id)}.json"
    path.write_bytes(exported + b"\n")
    return path


def file_name(instance_id: str) -> str:
    """Return a name for a file that is the id where that can be, and no other id's."""
    quoted = quote(instance_id, safe="@!,;=+ ")
    if len(quoted) <= NAME_CHARS_MAX:
        return quoted
    return f"{quoted[:100]}.{hashlib.sha256(instance_id.encode()).hexdigest()[:32]}"
