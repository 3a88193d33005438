"""Run one sample and print its result: `python -m shardrt.samples NAME [INPUT]`."""

import asyncio
import json
from typing import Any

import click

from shardrt.errors import ShardrtError
from shardrt.samples.hosting import connected, fail, hosting_options


@click.command()
@click.argument("name")
@click.argument("input_json", metavar="[INPUT]", default="null")
@hosting_options
def main(name: str, input_json: str, url: str | None, store: str) -> None:
    """Run the sample NAME with INPUT (JSON) and print its result as JSON.

    Try hello, fanout 1000, or monitor '{"checks": 3}'. Orders and word counts have commands of
    their own: python -m shardrt.samples.orders and python -m shardrt.samples.wordcount.
    """
    try:
        given = json.loads(input_json)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="INPUT") from None
    try:
        result = asyncio.run(run(name, given, url, store))
    except (ShardrtError, OSError) as error:
        fail(str(error))
    click.echo(json.dumps(result))


async def run(name: str, given: Any, url: str | None, store: str) -> Any:
    async with connected(url, store) as client:
        handle = await client.start(name, given)
        return await handle.result()


if __name__ == "__main__":
    main(prog_name="python -m shardrt.samples")
