"""The monkey: kills processes in an order that its seed decides, and counts its kills.

Shards and gateways are brought back by their supervisor, the supervisor by us (as a service
manager would), Postgres by us too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.serving import DEATH_TIMEOUT_S, Served, alive
from tests.waiting import wait_until

if TYPE_CHECKING:
    import random

    from shardrt.testing.postgres import PostgresServer

PAUSE_S = (0.5, 5.5)
"""Between two kills; short enough to hit recoveries, too."""
AWAY_S = (0.0, 3.0)
"""How long Postgres stays away."""
DECK = ("shard",) * 4 + ("gateway",) * 2 + ("supervisor",) + ("postgres",) * 2


class Monkey:
    """Kills something every few seconds until told to stop."""

    def __init__(self, host: Served, postgres: PostgresServer | None, rng: random.Random) -> None:
        self._host = host
        self._postgres = postgres
        self._rng = rng
        self.kills: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            deck = [card for card in DECK if self._postgres or card != "postgres"]
            self._rng.shuffle(deck)
            for victim in deck:
                if await stopped_within(stop, self._rng.uniform(*PAUSE_S)):
                    return
                await asyncio.to_thread(self._kill, victim, self._rng.uniform(*AWAY_S))

    def _kill(self, victim: str, away_s: float) -> None:
        if victim == "supervisor":
            self._host.kill()
            self.kills[victim] += 1
            self._host.start()
        elif victim == "postgres":
            assert self._postgres is not None
            self._postgres.stop("immediate")
            self.kills[victim] += 1
            time.sleep(away_s)
            self._postgres.start()
        else:
            self._kill_child(victim)

    def _kill_child(self, role: str) -> None:
        pids = self._host.children(role)
        if not pids:
            return  # it has not come back from the last time
        pid = self._rng.choice(pids)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in alive(), within_s=DEATH_TIMEOUT_S)
        self.kills[role] += 1


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False
