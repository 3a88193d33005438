"""A primary, its standby, and hosts that know both, each by ways of its own that can break."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from shardrt.testing.postgres import PostgresServer, with_parameters
from shardrt.testing.postgres_standby import PostgresStandby, make_synchronous
from tests.chaos.cluster import LOG_CHARS, PARTITIONS, TTL_S, WATCHDOG_S
from tests.chaos.ledger import PATH_VARIABLE
from tests.chaos.proxy import HERE, FaultProxy
from tests.serving import Served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECT_S = 2
"""As it is recommended where one of several servers may be silent."""


@dataclass(frozen=True)
class Host:
    """A host, and its ways to the two servers."""

    served: Served
    old_way: FaultProxy
    new_way: FaultProxy


class Pair:
    """Two servers and two hosts; all dead at the end."""

    def __init__(
        self, directory: Path, ledger: Path, *, synchronous: bool, show: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._synchronous = synchronous
        self._show = show
        self.primary = PostgresServer(fsync=True)
        self.standby: PostgresStandby
        self.log_way: FaultProxy
        """What the standby learns from the primary comes along here."""
        self.hosts: list[Host] = []

    @property
    def urls(self) -> list[str]:
        return [host.served.url for host in self.hosts]

    def logged(self, text: str) -> int:
        """Return how many hosts have logged this."""
        return sum(text in host.served.stderr for host in self.hosts)

    def lose_primary(self) -> None:
        """Kill it, with its machine: what comes later than that has no answer."""
        for host in self.hosts:
            host.old_way.cut()
            host.old_way.hold()
        self.primary.kill()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.primary.start)
        self.log_way = FaultProxy(port_of(self.primary))
        await self.log_way.start()
        self.standby = PostgresStandby(self.primary, port=self.log_way.port)
        await asyncio.to_thread(self.standby.start)
        if self._synchronous:
            await asyncio.to_thread(make_synchronous, self.primary, apply=True)
        for name in "ab":
            self.hosts.append(await self._make(name))
        await asyncio.gather(*(asyncio.to_thread(each.served.start) for each in self.hosts))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for host in self.hosts:
            if exc_info[0] is not None:
                self._show(f"host:\n{host.served.stderr[-LOG_CHARS:]}")
            if host.served.running:
                await asyncio.to_thread(host.served.kill_all)
            await host.old_way.close()
            await host.new_way.close()
        await asyncio.to_thread(self.standby.close)
        await asyncio.to_thread(self.primary.close)
        await self.log_way.close()

    async def _make(self, name: str) -> Host:
        old_way, new_way = FaultProxy(port_of(self.primary)), FaultProxy(port_of(self.standby))
        await old_way.start()
        await new_way.start()
        servers = f"@{HERE}:{old_way.port},{HERE}:{new_way.port}/"
        dsn = with_parameters(
            re.sub(r"@[^/]*/", servers, self.primary.dsn),
            target_session_attrs="read-write",
            connect_timeout=str(CONNECT_S),
            application_name=name,
        )
        directory = self._directory / name
        directory.mkdir()
        served = Served(
            dsn,
            directory,
            *("--host-id", name, "--shards", "1", "--partitions", str(PARTITIONS)),
            app="tests.chaos.app:app",
            variables={
                PATH_VARIABLE: str(self._ledger),
                "SHARDRT_HOST_LEASE_TTL_S": str(TTL_S),
                "SHARDRT_SHARD_WATCHDOG_S": str(WATCHDOG_S),
            },
        )
        return Host(served, old_way, new_way)


def port_of(server: PostgresServer) -> int:
    return int(server.dsn.rpartition(":")[2].partition("/")[0])
