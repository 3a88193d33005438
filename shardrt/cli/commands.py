"""Client commands that start instances and look at them."""

from __future__ import annotations

from datetime import UTC
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import JSON, Connection, client_command, fail, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from shardrt.client import Client
    from shardrt.core.history import Failure
    from shardrt.core.requests import Snapshot

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])


class StatusType(click.ParamType[str]):
    """A status by its name, in any case."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from shardrt.client.filters import status_of_text  # noqa: PLC0415 - see cli/__init__
        from shardrt.errors import InputInvalid  # noqa: PLC0415

        try:
            return str(status_of_text(value))
        except InputInvalid as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("name")
@click.option("--input", "value", type=JSON, help="JSON, @file, or - for stdin.")
@click.option("--id", "instance_id", help="Instance id [default: a new one].")
@click.option("--on-conflict", type=click.Choice(["fail", "return", "restart"]), default="fail")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE")
@click.option("--start-at", type=MOMENT, help="Not before this time; in UTC.")
@click.option("--version", help="Of the orchestrator [default: the newest].")
@click.option("--wait", "waits", is_flag=True, help="Wait for it to end, and print its output.")
@client_command
def start(  # noqa: PLR0913, PLR0917 - one per option
    connection: Connection,
    name: str,
    value: Any,
    instance_id: str | None,
    on_conflict: Any,
    tags: tuple[str, ...],
    start_at: datetime | None,
    version: str | None,
    *,
    waits: bool,
) -> None:
    """Start an orchestration and print the id of its instance."""
    pairs = pairs_of(tags)

    async def work(client: Client) -> tuple[str, Snapshot | None]:
        handle = await client.start(
            name,
            value,
            instance_id=instance_id,
            start_at=start_at and start_at.replace(tzinfo=UTC),
            on_conflict=on_conflict,
            tags=pairs or None,
            version=version,
        )
        found = await client.wait_for_end(handle.instance_id) if waits else None
        return handle.instance_id, found

    started, snapshot = connection.run(work)
    if snapshot is None:
        connection.show({"instanceId": started}, started)
    else:
        _show_end(connection, snapshot)


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--history", is_flag=True, help="Show its history, too.")
@client_command
def get(connection: Connection, instance_id: str, *, history: bool) -> None:
    """Show how an instance stands."""
    from shardrt.core.requests import Get, GetHistory  # noqa: PLC0415 - see cli/__init__
    from shardrt.http.shapes import history_shape, instance_shape  # noqa: PLC0415

    async def work(client: Client) -> dict[str, Any] | None:
        snapshot: Any = await client.call(instance_id, Get())
        if snapshot is None:
            return None
        shape = instance_shape(snapshot)
        if history:
            encoded: Any = await client.call(instance_id, GetHistory())
            shape["historyEvents"] = history_shape(encoded, show_output=True) if encoded else []
        return shape

    shape = connection.run(work)
    if shape is None:
        fail(f"no instance {instance_id!r}")
    elif connection.as_json:
        connection.show(shape)
    else:
        _print_instance(shape)


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--timeout", type=float, help="Seconds; then give up waiting.")
@client_command
def wait(connection: Connection, instance_id: str, timeout: float | None) -> None:
    """Wait until an instance has ended, and print its output."""
    import asyncio  # noqa: PLC0415 - see cli/__init__

    from shardrt.client.explaining import not_ended  # noqa: PLC0415

    async def work(client: Client) -> Snapshot | str:
        try:
            async with asyncio.timeout(timeout):
                return await client.wait_for_end(instance_id)
        except TimeoutError:
            return await not_ended(client, instance_id, timeout or 0.0)

    snapshot = connection.run(work)
    if isinstance(snapshot, str):
        fail(snapshot)
    else:
        _show_end(connection, snapshot)


@click.command("list")
@click.option("--status", type=StatusType(), multiple=True, help="Can be given several times.")
@click.option("--name", help="Of the orchestrator.")
@click.option("--prefix", help="Of the instance id.")
@click.option("--created-from", type=MOMENT, help="In UTC.")
@click.option("--created-to", type=MOMENT, help="In UTC; not included.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Several: all of them.")
@click.option("--parked", is_flag=True, help="Those whose code cannot go on; reads all open ones.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def list_instances(  # noqa: PLR0913, PLR0917 - one per option
    connection: Connection,
    status: tuple[str, ...],
    name: str | None,
    prefix: str | None,
    created_from: datetime | None,
    created_to: datetime | None,
    tags: tuple[str, ...],
    limit: int,
    *,
    parked: bool,
) -> None:
    """List instances, oldest first. The list may lag behind by a second."""
    from shardrt.client.filters import SnapshotPages, filter_of  # noqa: PLC0415 - see cli/__init__
    from shardrt.http.shapes import instance_shape  # noqa: PLC0415

    if parked and status:
        raise click.UsageError("--parked has its own idea of --status")
    where = filter_of(
        status=("Pending", "Running") if parked else status,
        name=name,
        id_prefix=prefix,
        created_from=created_from and created_from.replace(tzinfo=UTC),
        created_to=created_to and created_to.replace(tzinfo=UTC),
        tags=pairs_of(tags) or None,
    )

    async def work(client: Client) -> list[dict[str, Any]]:
        shapes: list[dict[str, Any]] = []
        async for page in SnapshotPages(client, where, 1000 if parked else min(limit, 100)):
            shapes += [instance_shape(each) for each in page if each.reason or not parked]
            if len(shapes) >= limit:
                break
        return shapes[:limit]

    shapes = connection.run(work)
    if connection.as_json:
        connection.show(shapes)
    elif shapes:
        _print_table(shapes)
    else:
        click.echo("no instances; a new one may take a second to be listed", err=True)


def pairs_of(tags: tuple[str, ...]) -> dict[str, str]:
    """Return KEY=VALUE options as a dict."""
    pairs = {}
    for tag in tags:
        key, separator, value = tag.partition("=")
        if not separator:
            raise click.BadParameter(f"{tag!r} is not KEY=VALUE", param_hint="--tag")
        pairs[key] = value
    return pairs


def _show_end(connection: Connection, snapshot: Snapshot) -> None:
    from shardrt.core.history import Status  # noqa: PLC0415 - see cli/__init__
    from shardrt.http.shapes import instance_shape  # noqa: PLC0415

    shape = instance_shape(snapshot)
    completed = snapshot.status is Status.COMPLETED
    if connection.as_json:
        connection.show(shape)
    elif completed:
        connection.show(snapshot.output)
    if not completed:
        ended = f"instance {snapshot.instance_id!r} is {snapshot.status}"
        why = "" if shape["output"] is None else str(_plain(shape["output"]))
        fail(f"{ended}: {why}" if why else ended)


def _plain(value: Any) -> Any:
    import msgspec  # noqa: PLC0415 - see cli/__init__

    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _print_instance(shape: dict[str, Any]) -> None:
    import msgspec  # noqa: PLC0415 - see cli/__init__

    history, failure = shape.pop("historyEvents", None), shape.pop("failure", None)
    for key, value in shape.items():
        if _plain(value) not in (None, "", {}):
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            click.echo(f" {click.style(f'{key:<15}', bold=True)}  {text}")
    _print_failure(failure)
    for event in history or ():
        rest = {k: v for k, v in event.items() if k not in ("eventType", "eventId", "timestamp")}
        if "failure" in rest:  # whole above, or in JSON
            rest["failure"] = f"{rest['failure']['type']}: {rest['failure']['message']}"
        line = f"{event['eventId']:>4} {event['timestamp']} {event['eventType']} "
        click.echo(line + msgspec.json.encode(rest).decode())


def _print_failure(failure: Failure | None) -> None:
    """Print tracebacks, the deepest cause last."""
    told = "failure"
    while failure is not None:
        click.echo(f" {click.style(f'{told:<15}', bold=True)}  {failure.type}")
        click.echo(indent((failure.details or failure.message).rstrip(), "   "))
        failure, told = failure.cause, "caused by"


def _print_table(shapes: list[dict[str, Any]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - see cli/__init__
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("INSTANCE", "NAME", "STATUS", "CREATED", "UPDATED"):
        table.add_column(title)
    if any("reason" in shape for shape in shapes):
        table.add_column("REASON")
    for shape in shapes:
        table.add_row(
            Text(shape["instanceId"]),
            Text(shape["name"]),
            Text(str(shape["runtimeStatus"])),
            _second(shape["createdTime"]),
            _second(shape["lastUpdatedTime"]),
            *([Text(shape["reason"])] if "reason" in shape else []),
        )
    print_table(table)


def _second(time: str) -> str:
    return time[:19] + "Z"
