"""The monkey: kills processes in an order that its seed decides, and counts its kills.

Shards and gateways are brought back by their supervisor, the supervisor by us (as a service
manager would), Postgres by us too.

Some die while the store is stalled. That is when a host has most to lose: what it takes in
meanwhile is in memory only, so whatever it has acknowledged of that would be gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import psycopg

from tests.serving import DEATH_TIMEOUT_S, Served, alive
from tests.waiting import wait_until

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from shardrt.testing.postgres import PostgresServer

PAUSE_S = (0.5, 5.5)
"""Between two kills; short enough to hit recoveries, too."""
AWAY_S = (0.1, 2.0)
"""How long the store is away."""
SCHEMA = "shardrt"
"""Where hubs are if their URL does not say so."""
RESTART_TIMEOUT_S = 30.0
"""A child that dies again and again is restarted ever more slowly."""


class Outages(Protocol):
    """How a store is taken away, and which cards the monkey plays on it."""

    deck: tuple[str, ...]

    def outage(self) -> AbstractContextManager[None]:
        """Stall the store for the block."""
        ...

    def crash(self) -> Callable[[], object]:
        """Crash the store; return what starts it again."""
        ...


class PostgresOutages:
    """Somebody locks the journal, then Postgres crashes and recovers from its log.

    What waited for the lock is not in that log.
    """

    deck: tuple[str, ...] = (
        *("shard",) * 3,
        *("gateway",) * 2,
        "supervisor",
        "postgres",
        *("stalled postgres and shard",) * 2,
        "stalled postgres and supervisor",
    )

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @contextmanager
    def outage(self) -> Iterator[None]:
        with psycopg.connect(self._server.dsn) as connection:
            connection.execute(f"LOCK TABLE {SCHEMA}.journal IN EXCLUSIVE MODE")
            yield
            self._server.stop("immediate")
            connection.close()
        self._server.start()

    def crash(self) -> Callable[[], object]:
        self._server.stop("immediate")
        return self._server.start


class SqliteOutages:
    """Somebody else holds the lock of the file."""

    deck: tuple[str, ...] = (
        *("shard",) * 3,
        *("gateway",) * 2,
        "supervisor",
        *("stalled store and shard",) * 2,
        "stalled store and supervisor",
    )

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def outage(self) -> Iterator[None]:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    def crash(self) -> Callable[[], object]:
        raise NotImplementedError("there is no server")


class Monkey:
    """Kills something every few seconds until told to stop."""

    def __init__(self, host: Served, outages: Outages, rng: random.Random) -> None:
        self._host = host
        self._outages = outages
        self._rng = rng
        self.kills: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            deck = list(self._outages.deck)
            self._rng.shuffle(deck)
            for card in deck:
                if await stopped_within(stop, self._rng.uniform(*PAUSE_S)):
                    return
                await asyncio.to_thread(self._play, card)

    def _play(self, card: str) -> None:
        stalled, _, victim = card.rpartition(" and ")
        if not stalled:
            bring_back = self._kill(victim)
            if victim == "postgres":
                time.sleep(self._rng.uniform(*AWAY_S))
            bring_back()
        else:
            with self._outages.outage():
                time.sleep(self._rng.uniform(*AWAY_S))
                bring_back = self._kill(victim)
            bring_back()
        self.kills[card] += 1

    def _kill(self, victim: str) -> Callable[[], object]:
        """Kill, and return what brings the victim back once the store is there again."""
        match victim:
            case "supervisor":
                self._host.kill()
                return self._host.start
            case "postgres":
                return self._outages.crash()
            case _:
                self._kill_child(victim)
                return lambda: None

    def _kill_child(self, role: str) -> None:
        # One that was killed a moment ago may not be back yet.
        wait_until(lambda: self._host.children(role), within_s=RESTART_TIMEOUT_S)
        pid = self._rng.choice(self._host.children(role))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in alive(), within_s=DEATH_TIMEOUT_S)


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False
