"""Several hosts on one store, each with a way to the store and a way to itself that can break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from shardrt.testing.postgres import free_port, with_parameters
from tests.chaos.ledger import PATH_VARIABLE
from tests.chaos.proxy import HERE, FaultProxy
from tests.serving import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.chaos.cable import Cable

TTL_S = 2.0
WATCHDOG_S = 4.0
PARTITIONS = 12
EVERYWHERE = "0.0.0.0"
LOG_CHARS = 6000
"""How much of a host's log is shown if the run fails."""


@dataclass(frozen=True)
class Member:
    """A host, and what lies between it and others."""

    name: str
    served: Served
    store_way: FaultProxy
    """All that it says to Postgres goes through here."""
    peer_way: FaultProxy
    """And here all that other hosts say to it. Clients come directly."""
    cable: Cable | None
    """What leads to the network that it has for itself, if it has."""

    def signal(self, number: int, pids: Sequence[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class Cluster:
    """The hosts of one hub; started one after the other, and all dead at the end."""

    def __init__(
        self,
        dsn: str,
        directory: Path,
        *,
        hosts: int,
        cables: Sequence[Cable],
        ledger: Path,
        show: Callable[[str], None],
    ) -> None:
        self._dsn = dsn
        self._cables: Sequence[Cable | None] = cables or [None] * hosts
        self._show = show
        self._directory = directory
        self._ledger = ledger
        self._names = "abc"[:hosts]
        self.members: list[Member] = []

    @property
    def urls(self) -> list[str]:
        return [member.served.url for member in self.members]

    def logged(self, text: str) -> int:
        """Return how often hosts have logged this."""
        return sum(member.served.stderr.count(text) for member in self.members)

    async def __aenter__(self) -> Self:
        for name, cable in zip(self._names, self._cables, strict=True):
            self.members.append(await self._make(name, cable))
        await asyncio.gather(*(asyncio.to_thread(each.served.start) for each in self.members))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if exc_info[0] is not None:
            for member in self.members:
                self._show(f"host {member.name}:\n{member.served.stderr[-LOG_CHARS:]}")
        for member in self.members:
            if member.served.running:
                await asyncio.to_thread(member.served.kill_all)
            await member.store_way.close()
            await member.peer_way.close()

    async def _make(self, name: str, cable: Cable | None) -> Member:
        store = urlsplit(self._dsn)
        assert store.port is not None, "the server's DSN names it"
        here, there = (cable.here, cable.there) if cable else (HERE, HERE)
        bind = EVERYWHERE if cable else HERE
        port = free_port()
        store_way = FaultProxy(store.port, bind=bind)
        peer_way = FaultProxy(port, there, bind=bind)
        await store_way.start()
        await peer_way.start()
        directory = self._directory / name
        directory.mkdir()
        dsn = self._dsn.replace(f"@{HERE}:{store.port}/", f"@{here}:{store_way.port}/")
        served = Served(
            with_parameters(dsn, application_name=name),
            directory,
            *("--host-id", name, "--shards", "1", "--partitions", str(PARTITIONS)),
            *("--host", there, "--insecure"),
            app="tests.chaos.app:app",
            variables={
                PATH_VARIABLE: str(self._ledger),
                "SHARDRT_HOST_LEASE_TTL_S": str(TTL_S),
                "SHARDRT_HOST_ADVERTISE": f"http://{here}:{peer_way.port}",
                "SHARDRT_SHARD_WATCHDOG_S": str(WATCHDOG_S),
            },
            port=port,
            address=there,
            before=cable.command if cable else (),
        )
        return Member(name, served, store_way, peer_way, cable)


def pids_of(member: Member, role: str) -> list[int]:
    """Return the processes of a host: all ("host"), its supervisor, or one of its children's."""
    if role == "host":
        return member.served.family()
    return [member.served.pid] if role == "supervisor" else member.served.children(role)


async def frozen_for(member: Member, pids: Sequence[int], seconds: float) -> None:
    """Stop processes, and let them go on later."""
    member.signal(signal.SIGSTOP, pids)
    try:
        await asyncio.sleep(seconds)
    finally:
        member.signal(signal.SIGCONT, pids)
