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
    "invoice": {"remind_every": "PT0.1S", "give_up_after": "PT0.35S"},
}
"""Samples that end by themselves, with an input for each."""

AZURE = "azure_cities"
"""Runs where ``shardrt[azure]`` is installed."""

ALIASES = {
    "helloworld": "hello",
    "workflow": "sequential",
    "parallel": "fanout",
    "timers": "invoice",
    "durable": "invoice",
    "human": "approval",
    "error": "resilient",
    "sub": "trip",
    "orchestrations": "trip",
    "data": "pipeline",
    "eternal": "monitor",
    "azure": AZURE,
    "compatibility": AZURE,
}
"""Other names that one may look for."""


@click.command()
@click.argument("name", required=False)
@click.argument("input_json", metavar="[INPUT]", required=False)
@hosting_options
def main(name: str | None, input_json: str | None, url: str | None, store: str) -> None:
    """Run the sample NAME with INPUT (JSON) and print its result as JSON.

    Try hello, fanout 1000, or monitor '{"checks": 3}'; all runs all that end by themselves.
    Without a name, all names are shown. Orders and word counts have commands of their own:
    python -m shardrt.samples.orders and python -m shardrt.samples.wordcount.
    """
    if name is None:
        click.echo("\n".join(titles()))
        return
    name = ALIASES.get(name, name)
    tour = dict(TOUR)
    if name in {AZURE, "all"} and url is None:
        try:
            include_azure()
            tour[AZURE] = None
        except ModuleNotFoundError as missing:
            click.echo(f"{AZURE} needs shardrt[azure]: {missing}", err=True)
    try:
        given = tour.get(name) if input_json is None else json.loads(input_json)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="INPUT") from None
    try:
        if name == "all":
            asyncio.run(run_all(tour, url, store))
        else:
            click.echo(json.dumps(asyncio.run(run(name, given, url, store))))
    except (ShardrtError, OSError) as error:
        fail(str(error))


def include_azure() -> None:
    """Add the sample that is written for Azure, whose packages take a while to import."""
    from shardrt.compat.azure import from_azure  # noqa: PLC0415
    from shardrt.samples import azure_cities  # noqa: PLC0415

    app.include(from_azure(azure_cities.app))


def titles() -> list[str]:
    """Return what every orchestrator is called."""
    lines = []
    for name in sorted({AZURE, *(each.name for each in app.orchestrators)}):
        others = ", ".join(alias for alias, of in ALIASES.items() if of == name)
        lines.append(f"{name} ({others})" if others else name)
    return lines


async def run(name: str, given: Any, url: str | None, store: str) -> Any:
    async with connected(url, store) as client:
        handle = await client.start(name, given)
        return await handle.result()


async def run_all(tour: dict[str, Any], url: str | None, store: str) -> None:
    """Run one after the other, also after a failure, and say how each of them ended."""
    failed = 0
    async with connected(url, store) as client:
        for name, given in tour.items():
            try:
                handle = await client.start(name, given)
                click.echo(f"ok {name}: {json.dumps(await handle.result())}")
            except ShardrtError as error:
                failed += 1
                click.echo(f"FAILED {name}: {error}")
    click.echo(f"{len(tour) - failed}/{len(tour)} ok")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m shardrt.samples")
