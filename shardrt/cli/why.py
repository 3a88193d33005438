"""``shardrt why``: what an instance waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardrt.cli.client import Connection, client_command

if TYPE_CHECKING:
    from shardrt.client import Client
    from shardrt.client.explaining import Explanation


@click.command()
@click.argument("instance_id", metavar="ID")
@client_command
def why(connection: Connection, instance_id: str) -> None:
    """Tell why an instance does not move: everything that it waits for."""

    async def work(client: Client) -> Explanation:
        return await client.explain(instance_id)

    explanation: Explanation = connection.run(work)
    if connection.as_json:
        from shardrt.http.shapes import explanation_shape  # noqa: PLC0415 - see cli/__init__

        connection.show(explanation_shape(explanation))
    else:
        _print(explanation)


def _print(explanation: Explanation) -> None:
    from rich.console import Console  # noqa: PLC0415 - see cli/__init__
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    status = explanation.status
    if status is None or status.is_final or not explanation.awaited:
        console.print(Text(explanation.summary))
        return
    since = f"{status.updated_at:%Y-%m-%dT%H:%M:%SZ}"
    state = f"{explanation.instance_id} ({status.name}) is {status.status}, unchanged since {since}"
    console.print(Text(f"{state}. It awaits"))
    table = Table(box=None)
    for title in ("KIND", "WHAT", "SINCE"):
        table.add_column(title, overflow="fold")
    for each in explanation.awaited:
        since = "" if each.since is None else f"{each.since:%Y-%m-%dT%H:%M:%SZ}"
        table.add_row(Text(each.kind), Text(each.text), since)
    console.print(table)
    if explanation.more:
        console.print(f"and {explanation.more} more")
