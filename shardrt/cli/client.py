"""What client commands share: options, a connection, and one clear line when it fails."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from shardrt.client import Client

DEFAULT_URL = "http://127.0.0.1:8520"
EXIT_FAILED = 1
EXIT_USAGE = 2
WIDE = 100_000


class Connection:
    """Which host to ask, and in which form to answer."""

    def __init__(
        self, url: str, token: str | None, as_json: bool, ca_file: str | None = None
    ) -> None:
        self.url = url
        self.token = token
        self.ca_file = ca_file
        self.as_json = as_json

    def run(self, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        """Run this with a client; a refusal ends the program with one line."""
        from shardrt.errors import ConfigInvalid, ConnectionLost, ShardrtError  # noqa: PLC0415

        try:
            return asyncio.run(self._run(work))
        except ConnectionLost as error:
            named = any(url.strip() in str(error) for url in self.url.split(","))
            where = "there" if named else f"at {self.url}"
            hint = f"is a host running {where}? Start one with `shardrt serve`, or give --url"
            fail(f"{error}; {hint}")
        except ConfigInvalid as error:
            fail(str(error), EXIT_USAGE)
        except ShardrtError as error:
            fail(str(error))

    async def _run(self, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        from shardrt.client import Client  # noqa: PLC0415 - only now is it needed

        connecting = Client.connect(
            self.url, token=self.token, ca_file=self.ca_file, call_timeout_s=15
        )
        async with await connecting as client:
            return await work(client)

    def show(self, answer: Any, text: str | None = None) -> None:
        """Print an answer: as JSON if asked for, else as this text."""
        if self.as_json or text is None:
            print_json(answer, indent=None if self.as_json else 2)
        else:
            click.echo(text)


def client_command(
    function: Callable[..., None],
) -> Callable[..., None]:
    """Give a command the options of all client commands, as its argument `connection`."""

    @click.option(
        "--url",
        envvar="SHARDRT_URL",
        default=DEFAULT_URL,
        show_default=True,
        help="A host, or several with commas between them, which are tried in turn.",
    )
    @click.option("--token", envvar="SHARDRT_TOKEN", help="If the host asks for one.")
    @click.option(
        "--ca-file",
        envvar="SHARDRT_CA_FILE",
        metavar="FILE",
        help="Whom to trust about https:// hosts [default: the system's authorities].",
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(function)
    def command(
        url: str, token: str | None, ca_file: str | None, *, as_json: bool, **arguments: Any
    ) -> None:
        function(Connection(url, token, as_json, ca_file), **arguments)

    return command


class JsonType(click.ParamType[Any]):
    """A value in JSON; ``@file`` reads it from a file, ``-`` from stdin."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(_text_of(value))
        except OSError as error:
            self.fail(f"cannot read {error.filename}: {error.strerror}", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}", param, ctx)


JSON = JsonType()


def _text_of(value: str) -> str:
    if value == "-":
        return sys.stdin.read()
    if value.startswith("@"):
        return Path(value[1:]).read_text(encoding="utf-8")
    return value


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the program with one line."""
    click.echo("shardrt: " + " ".join(message.split()), err=True)
    sys.exit(code)


def print_table(table: Any) -> None:
    """Print a rich table with one line for each row: ids can be copied, lines be searched."""
    from rich.console import Console  # noqa: PLC0415 - starting up stays quick

    console = Console()
    wide = console.options.update(max_width=WIDE)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


def print_json(answer: Any, indent: int | None = None) -> None:
    import msgspec  # noqa: PLC0415 - knows how to encode what we have

    encoded = msgspec.json.encode(answer)
    click.echo(msgspec.json.format(encoded, indent=indent) if indent else encoded)
