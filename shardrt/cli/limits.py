"""``shardrt limits``: limits that are in use, and who waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import Connection, client_command, print_table

if TYPE_CHECKING:
    from shardrt.client import LimitStatus


@click.command()
@click.option("--name", help="Of the limit.")
@client_command
def limits(connection: Connection, name: str | None) -> None:
    """Show the limits that are in use, with their queues. They may lag behind by a second."""
    found = connection.run(lambda client: client.limits(name))
    if connection.as_json:
        connection.show([_shape(each) for each in found])
    else:
        _print(found)


def _shape(found: LimitStatus) -> dict[str, Any]:
    return {
        "limiterId": found.limiter_id,
        "name": found.name,
        "key": found.key,
        "concurrency": found.concurrency,
        "rate": found.rate,
        "per": None if found.per is None else found.per.total_seconds(),
        "holders": found.holders,
        "waiting": found.waiting,
        "waitingSince": found.waiting_since,
        "nextTime": found.next_at,
        "partition": found.partition,
        "reason": found.reason,
    }


def _print(found: list[LimitStatus]) -> None:
    from rich.table import Table  # noqa: PLC0415 - see cli/__init__
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("LIMIT", "KEY", "ALLOWS", "AT WORK", "WAITING", "SINCE", "NEXT"):
        table.add_column(title)
    for each in found:
        since, following = (
            "-" if when is None else when.isoformat(sep=" ", timespec="seconds")
            for when in (each.waiting_since, each.next_at)
        )
        cells = (
            each.name,
            "-" if each.key is None else each.key,
            each.reason or _allows(each),
            str(each.holders),
            str(each.waiting),
            since,
            following,
        )
        table.add_row(*map(Text, cells))
    print_table(table)


def _allows(limit: LimitStatus) -> str:
    parts = [] if limit.concurrency is None else [f"{limit.concurrency} at a time"]
    if limit.rate is not None and limit.per is not None:
        parts.append(f"{limit.rate} in {limit.per.total_seconds():g} s")
    return ", ".join(parts) or "-"
