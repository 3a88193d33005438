"""``shardrt config``: what the settings are, where they are from, and what is wrong with them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from shardrt.cli.client import EXIT_FAILED, print_json, print_table

if TYPE_CHECKING:
    from shardrt.config import Settings

MASKED = "***"
SECRETS = ("host.token",)


@click.group()
def config() -> None:
    """Look at settings: defaults < TOML file < environment < options of `serve`."""


@config.command()
@click.argument("files", nargs=-1, metavar="FILE...", type=click.Path(dir_okay=False))
@click.option("--strict", is_flag=True, help="Let warnings fail the check, too.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def check(files: tuple[str, ...], *, strict: bool, as_json: bool) -> None:
    """Check settings files; without one, what the environment makes of the defaults.

    The environment counts, as it does for `serve`. All problems of a file are listed at once.
    Exit code 1 if there is one.
    """
    reports = [_checked(file) for file in files or (None,)]
    if as_json:
        print_json(reports)
    for report in () if as_json else reports:
        _tell(report)
    if any(report["errors"] or (strict and report["warnings"]) for report in reports):
        sys.exit(EXIT_FAILED)


def _checked(file: str | None) -> dict[str, Any]:
    from shardrt.config.advice import warnings  # noqa: PLC0415 - see cli/__init__
    from shardrt.config.loading import load_traced  # noqa: PLC0415
    from shardrt.errors import ConfigInvalid  # noqa: PLC0415

    report: dict[str, Any] = {"file": file, "errors": [], "warnings": []}
    try:
        loaded = load_traced(file, environ=os.environ)
        report["warnings"] = warnings(loaded.settings, loaded.sources)
        loaded.settings.check_files()
    except ConfigInvalid as error:
        report["errors"] = error.problems
    return report


def _tell(report: dict[str, Any]) -> None:
    name = report["file"] or "defaults and environment"
    for kind in ("errors", "warnings"):
        for problem in report[kind]:
            click.echo(f"{name}: {kind[:-1]}: {problem}")
    if not report["errors"]:
        click.echo(f"{name}: good" + (", with warnings" if report["warnings"] else ""))


@config.command()
@click.option(
    "--config", "file", envvar="SHARDRT_CONFIG", type=click.Path(dir_okay=False), help="TOML file."
)
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def show(file: str | None, *, changed: bool, as_json: bool) -> None:
    """Show every setting as `serve` would see it, and where its value is from."""
    from shardrt.cli.client import EXIT_USAGE, fail  # noqa: PLC0415 - see cli/__init__
    from shardrt.config.loading import load_traced  # noqa: PLC0415
    from shardrt.errors import ConfigInvalid  # noqa: PLC0415

    try:
        loaded = load_traced(file, environ=os.environ)
    except ConfigInvalid as error:
        fail(str(error), EXIT_USAGE)
    rows = [
        {"key": key, "value": value, "from": loaded.sources.get(key, "default")}
        for key, value in _values(loaded.settings)
        if key in loaded.sources or not changed
    ]
    if as_json:
        print_json(rows)
    else:
        _print_table(rows)


def _values(settings: Settings) -> list[tuple[str, object]]:
    """Return every setting by its key, without secrets."""
    from shardrt.config import mask_dsn  # noqa: PLC0415 - see cli/__init__
    from shardrt.config.settings import key_types  # noqa: PLC0415

    values: list[tuple[str, object]] = []
    for key in key_types():
        section, _, name = key.partition(".")
        value = getattr(getattr(settings, section), name)
        if key in SECRETS and value:
            value = MASKED
        values.append((key, mask_dsn(value) if key == "store.url" else value))
    return values


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - see cli/__init__
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("SETTING", "VALUE", "FROM"):
        table.add_column(title, overflow="fold")
    for row in rows:
        value = "" if row["value"] is None else str(row["value"])
        style = "dim" if row["from"] == "default" else ""
        table.add_row(Text(row["key"], style), Text(value, style), Text(row["from"], style))
    print_table(table)


@config.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of settings files, for editors and validators."""
    from shardrt.config.schema import schema  # noqa: PLC0415 - see cli/__init__

    print_json(schema(), indent=2)
