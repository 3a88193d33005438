"""``shardrt replay``: old histories against new code, before it is deployed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardrt.cli.check import app_of
from shardrt.cli.client import EXIT_FAILED, EXIT_USAGE, fail, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardrt.orchestration.ledger import Guard
    from shardrt.testing.replaying import Replayed

BAR_FROM = 20
"""So many files at least make a progress bar."""


@click.command()
@click.option("--app", required=True, metavar="MODULE:ATTRIBUTE", help="With the new code.")
@click.option(
    "--guard",
    type=click.Choice(["refuse", "warn", "off"]),
    default="refuse",
    show_default=True,
    help="What calls that are not deterministic lead to, as the setting shard.guard.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def replay(app: str, guard: Guard, paths: tuple[Path, ...], *, as_json: bool) -> None:
    """Run exported histories through an app's code: does what is under way still fit?

    PATHS are files that `shardrt export` has written, or directories of them. Activities are
    not executed. Exit code 1 if any of them diverges, or cannot be replayed.
    """
    from shardrt.testing.replaying import Verdict, files_of, replay_files  # noqa: PLC0415

    loaded = app_of(app)
    try:
        files = files_of(paths)
    except OSError as error:
        fail(str(error), EXIT_USAGE)
    with click.progressbar(
        replay_files(loaded, files, guard=guard),
        length=len(files),
        file=sys.stderr,
        hidden=as_json or len(files) < BAR_FROM or not sys.stderr.isatty(),
    ) as bar:
        results = list(bar)
    if as_json:
        print_json(results)
    else:
        _print(results)
    if any(each.verdict is not Verdict.OK for each in results):
        sys.exit(EXIT_FAILED)


def _print(results: Iterable[Replayed]) -> None:
    from collections import Counter  # noqa: PLC0415 - see cli/__init__

    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for title in ("FILE", "ORCHESTRATOR", "STATUS", "EVENTS", "VERDICT", "WHY"):
        table.add_column(title, overflow="fold")
    counts: Counter[str] = Counter()
    for each in results:
        counts[each.verdict] += 1
        name = each.name if each.version is None else f"{each.name} {each.version}"
        cells = (each.path, name, each.status, str(each.events or ""), each.verdict, each.reason)
        table.add_row(*map(Text, cells))
    Console().print(table)
    click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
