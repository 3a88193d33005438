"""The host under test: started for the run, or given by URL, or embedded in this process."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.app import app
from benchmarks.errors import HostFailed
from benchmarks.metering import FindRoles, host_processes, this_process
from benchmarks.options import Options
from shardrt import Client, Runtime

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Host:
    """A host that serves `benchmarks.app`."""

    client: Client
    find_roles: list[FindRoles]


@asynccontextmanager
async def host(options: Options, store_url: str) -> AsyncIterator[Host]:
    """Yield the host that the options ask for."""
    if options.url is not None:
        client = await Client.connect(options.url)
        try:
            yield Host(client, [this_process("client")])
        finally:
            await client.close()
    elif options.mode == "embedded":
        async with Runtime(
            app, store=store_url, partitions=options.partitions, tune_gc=True
        ) as runtime:
            yield Host(runtime.client, [this_process("embedded")])
    else:
        async with _served(options, store_url) as served:
            yield served


@asynccontextmanager
async def _served(options: Options, store_url: str) -> AsyncIterator[Host]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shardrt", "serve", "--app", "benchmarks.app:app"),
        *("--shards", str(options.shards), "--partitions", str(options.partitions)),
        *("--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        # Not on the command line: it holds a password.
        env={**os.environ, "SHARDRT_STORE": store_url},
    )
    try:
        client = await Client.connect(await _ready_url(process))
        try:
            yield Host(client, [this_process("client"), host_processes(process.pid)])
        finally:
            await client.close()
    finally:
        await _stop(process)


async def _ready_url(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None, "asked for a pipe"
    said = b""
    async with asyncio.timeout(START_TIMEOUT_S):
        while line := await process.stdout.readline():
            said += line
            if found := re.search(rb"https?://\S+", line):
                return found[0].decode()
    raise HostFailed(f"serve ended before it was ready: {said.decode(errors='replace')}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
