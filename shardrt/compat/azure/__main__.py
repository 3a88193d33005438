"""``python -m shardrt.compat.azure function_app:app``: the HTTP functions of an Azure app.

A process of its own, beside the hosts of the hub that run everything else of the app.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import click
import uvicorn

from shardrt.client import Client
from shardrt.compat.azure.http_functions import functions_app
from shardrt.config import Tokens
from shardrt.errors import ShardrtError
from shardrt.host.imports import import_object


@click.command()
@click.argument("app", metavar="MODULE:ATTRIBUTE")
@click.option("--url", default="http://127.0.0.1:8520", help="Of a host of the hub.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=7071, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="File of tokens of the hub, which callers need as well.",
)
def main(app: str, url: str, host: str, port: int, token_file: Path | None) -> None:
    """Serve the HTTP-triggered functions of APP, until Ctrl-C."""
    sys.path.insert(0, os.getcwd())
    try:
        tokens = Tokens(path="" if token_file is None else str(token_file))
        with contextlib.suppress(KeyboardInterrupt):  # drained by then
            asyncio.run(_serve(app, url, host, port, tokens))
    except ShardrtError as error:
        raise click.ClickException(str(error)) from None


async def _serve(reference: str, url: str, host: str, port: int, tokens: Tokens) -> None:
    azure_app = import_object(reference)
    async with await Client.connect(url, token=tokens.first, connect_timeout_s=30) as client:
        served = functions_app(azure_app, client, tokens=tokens)
        server = uvicorn.Server(uvicorn.Config(served, host=host, port=port, lifespan="off"))
        await server.serve()


if __name__ == "__main__":
    main()
