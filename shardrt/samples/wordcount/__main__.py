"""Print the most frequent words of a file: `python -m shardrt.samples.wordcount FILE`."""

import asyncio
import os
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from shardrt.errors import ShardrtError
from shardrt.samples.hosting import connected, fail, hosting_options
from shardrt.samples.wordcount import PART_BYTES, Summary, Text, wordcount


@click.command()
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--part-bytes", type=click.IntRange(1024), default=PART_BYTES, show_default=True)
@hosting_options
def main(file: Path | None, top: int, part_bytes: int, url: str | None, store: str) -> None:
    """Count the words of FILE (by default of a bundled text)."""
    text = Text(str(file.resolve()) if file else None, top, part_bytes)
    if file and url is None:
        os.chdir(file.resolve().parent)  # the runtime in this process reads only below it
    try:
        summary = asyncio.run(count(text, url, store))
    except (ShardrtError, OSError) as error:
        fail(str(error))
    show(summary)


async def count(text: Text, url: str | None, store: str) -> Summary:
    async with connected(url, store) as client:
        handle = await client.start(wordcount, text)
        summary: Summary = await handle.result()
        return summary


def show(summary: Summary) -> None:
    table = Table("word", "count")
    for word, times in summary.top:
        table.add_row(word, str(times))
    console = Console()
    console.print(table)
    console.print(f"{summary.words} words, {summary.distinct} different")


if __name__ == "__main__":
    main(prog_name="python -m shardrt.samples.wordcount")
