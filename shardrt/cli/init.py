"""``shardrt init``: a first project, small enough to be changed rather than understood."""

from __future__ import annotations

from pathlib import Path

import click

from shardrt.cli.client import fail

APP = '''\
"""A first orchestration."""

import asyncio

from shardrt import App, OrchestrationContext, RetryPolicy

app = App()


@app.activity(retry=RetryPolicy(max_attempts=5))
async def greet(name: str) -> str:
    """Activities do the real work. One may run again after a crash."""
    return f"Hello {name}!"


@app.orchestrator
async def welcome(ctx: OrchestrationContext, name: str) -> str:
    """Orchestrators say what is done when; they survive crashes, restarts and moves."""
    greeting = await ctx.call_activity(greet, name)
    await asyncio.sleep(1)  # or a year
    return greeting
'''

SETTINGS = """\
# What is not in here has its default: shardrt config show --config shardrt.toml

[host]
app = "app:app"

[store]
# Or postgresql://user:password@host/database, which several hosts can share.
url = "sqlite:///shardrt-data/hub.db"
"""

TESTS = '''\
"""In virtual time: nothing waits."""

from shardrt.testing import Environment, run_virtual

from app import app, welcome


def test_everybody_is_welcome() -> None:
    async def test() -> None:
        async with Environment(app) as env:
            handle = await env.client.start(welcome, "Ada")
            assert await handle.result() == "Hello Ada!"

    run_virtual(test())
'''

FILES = {"app.py": APP, "shardrt.toml": SETTINGS, "test_app.py": TESTS}

NEXT = """\
shardrt serve --config shardrt.toml
shardrt start welcome --input '"Ada"' --wait    # from another terminal
python -m pytest test_app.py                    # pip install pytest"""


@click.command()
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(directory: Path) -> None:
    """Write a first project into DIRECTORY: an app, its settings, a test.

    Nothing is overwritten: if one of the files is there, none is written, and the exit code
    is 1.
    """
    there = [name for name in FILES if (directory / name).exists()]
    if there:
        fail(f"nothing is written: {', '.join(there)} in {directory} would be lost")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        fail(str(error))
    click.echo(f"Wrote {', '.join(FILES)}. Next:\n")
    if directory != Path():
        click.echo(f"cd {directory}")
    click.echo(NEXT)
