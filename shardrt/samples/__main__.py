"""Run one sample and print its result, or all of them: `python -m shardrt.samples NAME [INPUT]`."""

import asyncio
import json
import sys
from typing import Any

import click

from shardrt.errors import ShardrtError
from shardrt.samples import app
from shardrt.samples.hosting import connected, fail, hosting_options

TOUR: dict[str, Any] = {
    "hello": None,
    "sequential": None,
    "fanout": 100,
    "resilient": {"down": ["primary"], "flaky": False},
    "trip": {"to": "Rome", "full": ["car"]},
    "monitor": {"checks": 3, "interval_s": 0.1},
    "heartbeat": {"beats": 3, "interval_s": 0.1},
    "approval": {"what": "a pen", "amount": 3},
    "pipeline": None,
    "quote": {"due": "2030-01-31", "items": [["pen", "1.20", 3]]},
    "checkout": ["pen", "ink"],
    "wordcount": {"top": 3},
}
"""Samples that end by themselves, with an input for each."""


@click.command()
@click.argument("name", required=False)
@click.argument("input_json", metavar="[INPUT]", default="null")
@hosting_options
def main(name: str | None, input_json: str, url: str | None, store: str) -> None:
    """Run the sample NAME with INPUT (JSON) and print its result as JSON.

    Try hello, fanout 1000, or monitor '{"checks": 3}'; all runs all that end by themselves.
    Without a name, all names are shown. Orders and word counts have commands of their own:
    python -m shardrt.samples.orders and python -m shardrt.samples.wordcount.
    """
    if name is None:
        click.echo("\n".join(sorted(each.name for each in app.orchestrators)))
        return
    try:
        given = json.loads(input_json)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="INPUT") from None
    try:
        if name == "all":
            asyncio.run(run_all(url, store))
        else:
            click.echo(json.dumps(asyncio.run(run(name, given, url, store))))
    except (ShardrtError, OSError) as error:
        fail(str(error))


async def run(name: str, given: Any, url: str | None, store: str) -> Any:
    async with connected(url, store) as client:
        handle = await client.start(name, given)
        return await handle.result()


async def run_all(url: str | None, store: str) -> None:
    """Run one after the other, also after a failure, and say how each of them ended."""
    failed = 0
    async with connected(url, store) as client:
        for name, given in TOUR.items():
            try:
                handle = await client.start(name, given)
                click.echo(f"ok {name}: {json.dumps(await handle.result())}")
            except ShardrtError as error:
                failed += 1
                click.echo(f"FAILED {name}: {error}")
    click.echo(f"{len(TOUR) - failed}/{len(TOUR)} ok")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m shardrt.samples")
