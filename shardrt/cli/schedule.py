"""Client commands about schedules."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import JSON, Connection, client_command
from shardrt.cli.commands import MOMENT
from shardrt.cli.steering import AgeType

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from shardrt.client import Client
    from shardrt.client.schedules import ScheduleStatus


@click.group()
def schedule() -> None:
    """Start orchestrations again and again."""


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.argument("name")
@click.option("--input", "value", type=JSON, help="JSON, @file, or - for stdin.")
@click.option("--cron", help="Five fields, or six with seconds first.")
@click.option("--timezone", default="UTC", show_default=True, help="IANA name, for --cron.")
@click.option("--every", type=AgeType(), help="Instead of --cron: 90s, 15m, 12h, 7d.")
@click.option("--overlap", type=click.Choice(["skip", "queue", "allow", "replace"]), default="skip")
@click.option("--catch-up", type=click.Choice(["none", "last", "all"]), default="last")
@click.option("--jitter", type=AgeType(), help="Each start is late by up to that.")
@click.option("--start", type=MOMENT, help="Nothing is due earlier; in UTC.")
@click.option("--end", type=MOMENT, help="Nothing is due later; in UTC.")
@click.option("--replace", is_flag=True, help="Replace an open schedule of this id.")
@client_command
def add(connection: Connection, schedule_id: str, name: str, value: Any, **options: Any) -> None:
    """Start an orchestration whenever it is due."""
    for moment in ("start", "end"):
        given: datetime | None = options[moment]
        options[moment] = given and given.replace(tzinfo=UTC)
    jitter: timedelta | None = options.pop("jitter")

    async def work(client: Client) -> None:
        await client.schedule(schedule_id, name, value, jitter=jitter or 0, **options)

    connection.run(work)
    connection.show({"scheduleId": schedule_id}, f"schedule {schedule_id} is set")


@schedule.command("list")
@click.option("--ended", is_flag=True, help="Also those that have ended.")
@client_command
def list_schedules(connection: Connection, *, ended: bool) -> None:
    """List schedules. The list may lag behind by a second."""

    async def work(client: Client) -> list[ScheduleStatus]:
        return [each async for each in client.schedules(ended=ended)]

    found = connection.run(work)
    if connection.as_json:
        from shardrt.http.schedules import schedule_shape  # noqa: PLC0415 - see cli/__init__

        connection.show([schedule_shape(each) for each in found])
    else:
        _print(found)


def _steer(verb: str, done: str, text: str) -> click.Command:
    @schedule.command(verb, help=text)
    @click.argument("schedule_id", metavar="ID")
    @client_command
    def command(connection: Connection, schedule_id: str) -> None:
        connection.run(lambda client: getattr(client, f"{verb}_schedule")(schedule_id))
        connection.show({"scheduleId": schedule_id}, f"schedule {schedule_id} {done}")

    found: click.Command = command
    return found


pause = _steer("pause", "is paused", "Start nothing more until it is resumed.")
resume = _steer("resume", "goes on", "Go on after a pause.")
trigger = _steer("trigger", "is triggered", "Start an instance now.")
delete = _steer("delete", "is deleted", "End a schedule and forget it; what runs goes on.")


def _print(found: list[ScheduleStatus]) -> None:
    from rich.console import Console  # noqa: PLC0415 - see cli/__init__
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("SCHEDULE", "ORCHESTRATOR", "WHEN", "NEXT", "LAST", "STARTED", "SKIPPED"):
        table.add_column(title, overflow="fold")
    if any(each.last_failure or each.reason for each in found):
        table.add_column("LAST FAILURE", overflow="fold")
    for each in found:
        when = f"{each.cron} {each.timezone}" if each.cron else f"every {each.every}"
        following = "ended" if each.ended else "paused" if each.paused else _second(each.next_due)
        cells = (each.schedule_id, each.orchestrator, when, following, _second(each.last_due))
        failure = each.reason or each.last_failure
        counts = (str(each.started), str(each.skipped))
        table.add_row(*map(Text, cells), *counts, *([Text(failure)] if failure else []))
    Console().print(table)


def _second(when: datetime | None) -> str:
    return "-" if when is None else f"{when:%Y-%m-%dT%H:%M:%SZ}"
