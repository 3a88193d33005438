"""``shardrt check``: what in an app's orchestrators is not deterministic."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardrt.cli.client import EXIT_FAILED, EXIT_USAGE, fail, print_json

if TYPE_CHECKING:
    from shardrt.orchestration.app import App
    from shardrt.orchestration.check import Finding


@click.command()
@click.argument("app", metavar="MODULE:ATTRIBUTE")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def check(app: str, *, as_json: bool) -> None:
    """Read the orchestrators of an app, and say what a replay would stumble over.

    Looks for clocks, chance, the environment, files, sockets, threads, walks over sets, awaits
    of what is not asyncio's, activities called directly and writes to global state. Exit code
    1 if something is found. A line that ends in "# shardrt: allow" is left out.
    """
    from shardrt.orchestration.check import check_app  # noqa: PLC0415 - see cli/__init__

    loaded = app_of(app)
    findings = check_app(loaded)
    if as_json:
        print_json(findings)
    elif findings:
        _print_table(findings)
    else:
        click.echo(f"{len(loaded.orchestrators)} orchestrators, nothing found")
    if findings:
        sys.exit(EXIT_FAILED)


def app_of(reference: str) -> App:
    """Import an app, also from the working directory; end the program if that fails."""
    from shardrt.errors import ConfigInvalid  # noqa: PLC0415 - see cli/__init__
    from shardrt.host.imports import import_app  # noqa: PLC0415

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_app(reference)
    except ConfigInvalid as error:
        fail(str(error).removeprefix("host.app: "), EXIT_USAGE)


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415 - see cli/__init__
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("WHERE", "ORCHESTRATOR", "FOUND", "USE INSTEAD"):
        table.add_column(title, overflow="fold")
    for each in findings:
        table.add_row(
            Text(f"{_short(each.file)}:{each.line}"),
            Text(each.orchestrator),
            Text(each.what),
            Text(each.instead),
        )
    Console().print(table)


def _short(file: str) -> str:
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
