"""``shardrt cluster``: hosts, processes, and who owns which partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import Connection, client_command, print_table

if TYPE_CHECKING:
    from shardrt.client import Client


@click.command()
@client_command
def cluster(connection: Connection) -> None:
    """Show hosts, processes, and who owns which partition. Counters are in --json."""

    async def work(client: Client) -> dict[str, Any]:
        return await client.cluster()

    view = connection.run(work)
    if connection.as_json:
        connection.show(view)
    else:
        _print(view)


def _print(view: dict[str, Any]) -> None:
    for title, rows in view.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            print_table(_table(title, rows))
        elif not isinstance(rows, list):
            click.echo(f"{title}: {rows}")


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # Every fact is a column, so that new ones show up by themselves; a dictionary fits in none.
    columns = list(
        dict.fromkeys(name for row in rows for name in row if not isinstance(row[name], dict))
    )
    table = Table(title=title, title_justify="left", box=None)
    for name in columns:
        table.add_column(name.replace("_", " ").upper())
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)
