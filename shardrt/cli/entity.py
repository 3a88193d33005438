"""Client commands about entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import JSON, Connection, client_command, fail

if TYPE_CHECKING:
    from shardrt.client import Client


@click.group()
def entity() -> None:
    """Look at entities, and have them do something."""


@entity.command("get")
@click.argument("entity_id", metavar="@NAME@KEY")
@client_command
def get_entity(connection: Connection, entity_id: str) -> None:
    """Show the state of an entity."""
    found = connection.run(lambda client: client.get_entity(entity_id))
    if found is None:
        fail(f"no entity {entity_id!r}")
    else:
        connection.show(_shape(found))


@entity.command("signal")
@click.argument("entity_id", metavar="@NAME@KEY")
@click.argument("operation")
@click.option("--input", "value", type=JSON, help="JSON, @file, or - for stdin.")
@click.option("--wait", "waits", is_flag=True, help="Wait until it is done, and print its result.")
@client_command
def signal_entity(
    connection: Connection, entity_id: str, operation: str, value: Any, *, waits: bool
) -> None:
    """Have an entity do something."""
    if waits:
        result = connection.run(lambda client: client.call_entity(entity_id, operation, value))
        connection.show(result)
        return
    connection.run(lambda client: client.signal_entity(entity_id, operation, value))
    connection.show({"entityId": entity_id}, f"{operation!r} is accepted by {entity_id}")


@entity.command("list")
@click.option("--name", help="Of the entities.")
@click.option("--prefix", default="", help="Of their keys.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def list_entities(connection: Connection, name: str | None, prefix: str, limit: int) -> None:
    """List entities, oldest first. The list may lag behind by a second."""

    async def work(client: Client) -> list[dict[str, Any]]:
        shapes: list[dict[str, Any]] = []
        async for each in client.list_entities(name, key_prefix=prefix, page_size=min(limit, 100)):
            shapes.append(_shape(each))
            if len(shapes) >= limit:
                break
        return shapes

    shapes = connection.run(work)
    if connection.as_json:
        connection.show(shapes)
    else:
        _print_table(shapes)


def _shape(found: Any) -> dict[str, Any]:
    return {
        "entityId": found.entity_id,
        "state": found.state,
        "createdTime": found.created_at,
        "lastUpdatedTime": found.updated_at,
        "lockedBy": found.locked_by,
        "backlog": found.backlog,
    }


def _print_table(shapes: list[dict[str, Any]]) -> None:
    import msgspec  # noqa: PLC0415 - see cli/__init__
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("ENTITY", "STATE", "UPDATED"):
        table.add_column(title, overflow="fold")
    for shape in shapes:
        state = msgspec.json.encode(shape["state"]).decode()
        updated = shape["lastUpdatedTime"].isoformat(sep=" ", timespec="seconds")
        table.add_row(Text(shape["entityId"]), Text(state), Text(updated))
    Console().print(table)
