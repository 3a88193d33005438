"""The host under test: one that runs, one started for the run, or one in this process."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from shardrt import Client, Runtime
from shardrt.bench import app, processes
from shardrt.bench.errors import HostFailed
from shardrt.bench.metering import FindRoles, host_processes, this_process
from shardrt.bench.options import Options
from shardrt.bench.tracing import traced_as

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
LOG_TAIL_CHARS = 2000


class Served:
    """`shardrt serve` as a process of ours, which can be killed and started again.

    It keeps its port, so that clients find it again. What it logs is shown if it fails.

    Args:
        options: of the run.
        store_url: its store.
        more: further options of the command.
        variables: further settings, as environment variables.
    """

    def __init__(
        self,
        options: Options,
        store_url: str,
        *more: str,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._arguments = (
            *("--app", options.app),
            *("--shards", str(options.shards)),
            *("--partitions", str(options.partitions)),
            *more,
        )
        # Not on the command line: it holds a password.
        self._environment = {**os.environ, "SHARDRT_STORE": store_url, **(variables or {})}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the host
        self._process: asyncio.subprocess.Process | None = None
        self._port = "0"
        self.url = ""

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        assert self._process is not None, "started"
        return self._process.pid

    async def start(self) -> None:
        """Start it and return once it serves.

        Raises:
            HostFailed: it ended before.
        """
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shardrt", "serve", *self._arguments, "--port", self._port),
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
        )
        self.url = await self._ready_url(self._process)
        self._port = self.url.rpartition(":")[2].strip("/")

    async def _ready_url(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None, "asked for a pipe"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while line := await process.stdout.readline():
                    if found := re.search(rb"https?://\S+", line):
                        return found[0].decode()
        raise HostFailed(f"serve did not become ready: {self._logged()}")

    def _logged(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG_TAIL_CHARS:].strip()

    async def kill(self) -> None:
        """Kill all its processes at once, as a power cut would."""
        for each in processes.descendants(processes.snapshot(), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        assert self._process is not None, "started"
        await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
        self._log.close()

    async def stop(self) -> None:
        """End it in good order, if it runs."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            await self.kill()


@dataclass(frozen=True)
class Host:
    """A host that serves `shardrt.bench.app`."""

    client: Client
    find_roles: list[FindRoles]
    served: Served | None = None
    """Its processes, if they are ours."""


@asynccontextmanager
async def host(options: Options, store_url: str) -> AsyncIterator[Host]:
    """Yield the host that the options ask for."""
    tracing = traced_as(options.tracing, options.traces_per_s_max)
    if options.mode == "embedded":
        with tracing as traced, traced.provider() as provider:
            async with Runtime(
                app,
                store=store_url,
                partitions=options.partitions,
                tune_gc=True,
                settings=traced.settings,
                tracer_provider=provider,
            ) as runtime:
                yield Host(runtime.client, [this_process("embedded"), traced.find_roles])
    elif options.mode == "serve":
        with tracing as traced:
            async with (
                Served(options, store_url, variables=traced.variables) as served,
                await Client.connect(served.url) as client,
            ):
                host_roles = host_processes(lambda: served.pid)
                roles = [this_process("client"), host_roles, traced.find_roles]
                yield Host(client, roles, served)
    else:
        async with await Client.connect(options.url, token=options.token) as client:
            yield Host(client, [this_process("client")])
