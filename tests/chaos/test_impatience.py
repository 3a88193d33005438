"""A database that has no patience with us: timeouts, cancelled statements, ended sessions, locks.

A statement that was cancelled has changed nothing, and one whose session has ended may have done
so or not. Neither is guessed: the load's verdict tells.

python -m pytest -m chaos -k impatience -s
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest

from shardrt import Client
from shardrt.testing.postgres import with_parameters
from tests.chaos.ledger import PATH_VARIABLE, Ledger
from tests.chaos.load import Load
from tests.chaos.monkey import SCHEMA
from tests.chaos.test_chaos import DRAIN_S, ERRORS_SHOWN_MAX
from tests.chaos.test_cluster_chaos import damage
from tests.chaos.verdict import judge
from tests.serving import Served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shardrt.testing.postgres import PostgresServer

    Show = Callable[[str], None]

HARASSED_S = 6.0
LOCKED_S = 4.0
"""Longer than a lease, and longer than the 3 s for which a statement of ours waits for a lock."""
TTL_S = 2.0
WATCHDOG_S = 4.0
PAUSE_S = (0.0, 0.05)
NAME = "harassed"
ROLE_SETTINGS = {
    "statement_timeout": "30ms",
    "lock_timeout": "10ms",
    "idle_in_transaction_session_timeout": "50ms",
}
"""What a careful administrator may set, only smaller."""
LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ")

HARASS = {
    "cancel": "SELECT pg_cancel_backend(pid)",
    "terminate": "SELECT pg_terminate_backend(pid)",
}
WHOM = """
  FROM pg_stat_activity
 WHERE application_name = %s AND (state = 'active' OR random() < 0.1)
 ORDER BY random()
 LIMIT 1
"""

LOCKS = {
    "lock the journal": f"LOCK TABLE {SCHEMA}.journal IN EXCLUSIVE MODE",
    "lock a partition": f"SELECT FROM {SCHEMA}.partitions WHERE partition = 0 FOR UPDATE",
    "lock all partitions": f"LOCK TABLE {SCHEMA}.partitions IN ACCESS EXCLUSIVE MODE",
}

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.pg,
    pytest.mark.proc,
    pytest.mark.slow,
    pytest.mark.runs(1),
    pytest.mark.timeout(300),
]


def test_impatience_costs_nothing_but_time(
    postgres: PostgresServer, tmp_path: Path, seed: int, show: Show
) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for name, value in ROLE_SETTINGS.items():
            connection.execute(f"ALTER ROLE CURRENT_USER SET {name} = '{value}'")
    ledger = tmp_path / "ledger.jsonl"
    ledger.touch()
    host = Served(
        with_parameters(postgres.dsn, application_name=NAME),
        tmp_path,
        *("--shards", "2"),
        app="tests.chaos.app:app",
        variables={
            PATH_VARIABLE: str(ledger),
            "SHARDRT_HOST_LEASE_TTL_S": str(TTL_S),
            "SHARDRT_SHARD_WATCHDOG_S": str(WATCHDOG_S),
        },
    )
    with host:
        asyncio.run(harass(host, Harasser(postgres.dsn, random.Random(seed)), ledger, show))


class Harasser:
    """Somebody with a console of the database."""

    def __init__(self, dsn: str, rng: random.Random) -> None:
        self.dsn = dsn
        self._rng = rng
        self.blows: Counter[str] = Counter()

    async def harass(self, seconds: float) -> None:
        """Cancel statements of the host, mostly while they run, and end some of its sessions."""
        async with await self._connect(autocommit=True) as console:
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                what = "cancel" if self._rng.random() < 0.7 else "terminate"
                cursor = await console.execute(HARASS[what] + WHOM, [NAME])
                self.blows[what] += len(await cursor.fetchall())
                await asyncio.sleep(self._rng.uniform(*PAUSE_S))

    async def lock(self, what: str, statement: str) -> None:
        async with await self._connect(autocommit=False) as console:
            await console.execute(statement)
            self.blows[what] += 1
            await asyncio.sleep(LOCKED_S)
            await console.rollback()

    async def _connect(self, *, autocommit: bool) -> psycopg.AsyncConnection[tuple[object, ...]]:
        console = await psycopg.AsyncConnection.connect(self.dsn, autocommit=autocommit)
        for name in ROLE_SETTINGS:
            await console.execute(f"SET {name} = 0")
        return console


async def harass(host: Served, harasser: Harasser, ledger: Path, show: Show) -> None:
    shards = host.children("shard")
    async with await Client.connect(host.url) as client:
        load = Load([client], random.Random(1))
        stop = asyncio.Event()
        loading = asyncio.ensure_future(load.run(stop, DRAIN_S))
        await harasser.harass(HARASSED_S)
        for what, statement in LOCKS.items():
            await harasser.lock(what, statement)
        stop.set()
        await loading
        verdict = await judge(client, load.instances, load.tallying.logs, Ledger(ledger))
    verdict.faults += damage(with_parameters(harasser.dsn, application_name="verify"))
    blows = ", ".join(f"{count} times {what}" for what, count in sorted(harasser.blows.items()))
    show(f"\n{blows}\n{verdict.text()}")
    for error, count in load.errors.most_common(ERRORS_SHOWN_MAX):
        show(f"clients were told {count} times: {error}")
    assert not verdict.faults, verdict.text()
    assert min(harasser.blows.values()) > 0
    assert host.running
    assert host.children("shard") == shards, "a shard was ended for what its database did"
    lines = host.stderr.splitlines()
    assert [line for line in lines if not LINE.match(line)] == []
    for text in ("lost the commit connection", "unknown outcome", "canceling statement"):
        assert any(text in line for line in lines), text
    locked = [line for line in lines if "another connection holds its lock" in line]
    assert locked, "nothing was said of the locks"
