"""Client commands that change instances."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import JSON, Connection, client_command, fail
from shardrt.cli.commands import StatusType, pairs_of

if TYPE_CHECKING:
    from shardrt.client import Client

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class AgeType(click.ParamType[timedelta]):
    """A duration such as 90s, 15m, 12h, 7d or 2w."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _AGE.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 12h, 7d or 2w", param, ctx)
        try:
            return timedelta(**{_UNITS[match[2]]: float(match[1])})
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


@click.command("raise-event")
@click.argument("instance_id", metavar="ID")
@click.argument("name")
@click.option("--data", type=JSON, help="JSON, @file, or - for stdin.")
@client_command
def raise_event(connection: Connection, instance_id: str, name: str, data: Any) -> None:
    """Deliver an external event; it is kept until the code asks for one of that name."""
    connection.run(lambda client: client.raise_event(instance_id, name, data))
    connection.show({"instanceId": instance_id}, f"event {name!r} is accepted for {instance_id}")


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--reason", default="")
@click.option("--recursive/--not-recursive", default=True, show_default=True)
@client_command
def terminate(connection: Connection, instance_id: str, reason: str, *, recursive: bool) -> None:
    """End an instance from outside, and its children."""
    connection.run(lambda client: client.terminate(instance_id, reason, recursive=recursive))
    connection.show({"instanceId": instance_id}, f"{instance_id} is terminated")


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--reason", default="")
@client_command
def cancel(connection: Connection, instance_id: str, reason: str) -> None:
    """Cancel an instance, which may clean up before it ends."""
    connection.run(lambda client: client.cancel(instance_id, reason))
    connection.show({"instanceId": instance_id}, f"{instance_id} is told to cancel")


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--reason", default="")
@client_command
def suspend(connection: Connection, instance_id: str, reason: str) -> None:
    """Pause an instance."""
    connection.run(lambda client: client.suspend(instance_id, reason))
    connection.show({"instanceId": instance_id}, f"{instance_id} is suspended")


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--reason", default="")
@client_command
def resume(connection: Connection, instance_id: str, reason: str) -> None:
    """Let a suspended instance go on."""
    connection.run(lambda client: client.resume(instance_id, reason))
    connection.show({"instanceId": instance_id}, f"{instance_id} goes on")


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--reason", default="")
@client_command
def rewind(connection: Connection, instance_id: str, reason: str) -> None:
    """Run again what failed in a failed instance."""
    connection.run(lambda client: client.rewind(instance_id, reason))
    connection.show({"instanceId": instance_id}, f"{instance_id} is rewound")


@click.command()
@click.argument("instance_id", metavar="ID")
@client_command
def restart(connection: Connection, instance_id: str) -> None:
    """Start an instance that has ended anew."""
    connection.run(lambda client: client.restart(instance_id))
    connection.show({"instanceId": instance_id}, f"{instance_id} is restarted")


@click.command()
@click.argument("instance_id", metavar="[ID]", required=False)
@click.option("--status", type=StatusType(), multiple=True, help="Can be given several times.")
@click.option("--older-than", type=AgeType(), help="Ended longer ago than: 90s, 15m, 12h, 7d.")
@click.option("--name", help="Of the orchestrator.")
@click.option("--prefix", help="Of the instance id.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Several: all of them.")
@click.option("--force", is_flag=True, help="With ID: also if it is quarantined as unreadable.")
@client_command
def purge(  # noqa: PLR0913, PLR0917 - one per option
    connection: Connection,
    instance_id: str | None,
    status: tuple[str, ...],
    older_than: timedelta | None,
    name: str | None,
    prefix: str | None,
    tags: tuple[str, ...],
    *,
    force: bool,
) -> None:
    """Delete one instance that has ended, or all that fulfil the conditions."""
    conditional = bool(status or older_than or name or prefix or tags)
    if conditional == bool(instance_id):
        raise click.UsageError("give an ID, or one of --status --older-than --name --prefix")
    if force and not instance_id:
        raise click.UsageError("--force is for one ID")

    pairs = pairs_of(tags)

    def progress(purged: int) -> None:
        if not connection.as_json and sys.stderr.isatty():
            click.echo(f"\r{purged} deleted so far", err=True, nl=False)

    async def work(client: Client) -> int:
        if instance_id:
            return await client.purge(instance_id, force=force)
        ended_before = None if older_than is None else datetime.now(UTC) - older_than  # noqa: TID251
        return await client.purge_where(
            status=status,
            completed_to=ended_before,
            progress=progress,
            name=name,
            id_prefix=prefix,
            tags=pairs or None,
        )

    purged = connection.run(work)
    if instance_id and not purged:
        fail(f"no instance {instance_id!r}")
    connection.show({"instancesDeleted": purged}, f"{purged} deleted")
