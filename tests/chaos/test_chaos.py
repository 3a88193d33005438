"""Nothing acknowledged is lost, nothing runs wrong, whatever is killed.

python -m pytest -m chaos --chaos-seconds 200 --seed 7
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from shardrt import Client
from tests.chaos.ledger import PATH_VARIABLE, Ledger
from tests.chaos.load import Load
from tests.chaos.monkey import Monkey, Outages, PostgresOutages, SqliteOutages
from tests.chaos.verdict import Verdict, judge
from tests.serving import Served

if TYPE_CHECKING:
    from pathlib import Path

    from shardrt.testing.postgres import PostgresServer

SQLITE_SHARE = 0.2
SQLITE_SECONDS_MIN = 40.0
DRAIN_S = 90.0
ERRORS_SHOWN_MAX = 20
Show = Callable[[str], None]

pytestmark = [pytest.mark.chaos, pytest.mark.proc, pytest.mark.slow, pytest.mark.runs(1)]


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--chaos-seconds"))


@pytest.mark.pg
@pytest.mark.timeout(0)
def test_nothing_is_lost_on_postgres(
    postgres: PostgresServer, tmp_path: Path, seconds: float, seed: int, show: Show
) -> None:
    run(Trial(tmp_path, postgres.dsn, PostgresOutages(postgres), seconds, seed), show)


@pytest.mark.timeout(0)
def test_nothing_is_lost_on_sqlite(tmp_path: Path, seconds: float, seed: int, show: Show) -> None:
    path = tmp_path / "hub.db"
    seconds = max(SQLITE_SECONDS_MIN, seconds * SQLITE_SHARE)
    run(Trial(tmp_path, f"sqlite:///{path}", SqliteOutages(path), seconds, seed), show)


@dataclass(frozen=True)
class Trial:
    """What is tormented, and for how long."""

    directory: Path
    store_url: str
    outages: Outages
    seconds: float
    seed: int

    @property
    def ledger_path(self) -> Path:
        return self.directory / "ledger.jsonl"


def run(trial: Trial, show: Show) -> None:
    trial.ledger_path.touch()
    host = Served(
        trial.store_url,
        trial.directory,
        *("--shards", "2"),
        app="tests.chaos.app:app",
        variables={PATH_VARIABLE: str(trial.ledger_path)},
    )
    with host:
        monkey = Monkey(host, trial.outages, random.Random(trial.seed))
        verdict, errors = asyncio.run(torment(host, monkey, trial))
    kills = ", ".join(f"{count} {victim}" for victim, count in sorted(monkey.kills.items()))
    show(f"\nseed {trial.seed}, {trial.seconds:g} s, killed: {kills}\n{verdict.text()}")
    for error, count in errors:
        show(f"client was told {count} times: {error}")
    assert not verdict.faults, verdict.text()
    assert set(monkey.kills) == set(trial.outages.deck)
    assert verdict.counts["completed"] > trial.seconds
    assert verdict.counts["events acknowledged"] > 0
    assert verdict.counts["operations acknowledged"] > trial.seconds
    assert verdict.counts["transfers"] > 0
    assert verdict.counts["effects repeated"] > 0, "nothing was killed in the middle of its work"


async def torment(
    host: Served, monkey: Monkey, trial: Trial
) -> tuple[Verdict, list[tuple[str, int]]]:
    """Run load and monkey side by side; then let everything end, and judge."""
    client = await Client.connect(host.url)
    try:
        load = Load([client], random.Random(trial.seed + 1))
        calm, stop = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(stop, DRAIN_S))
            killing = group.create_task(monkey.run(calm))
            await asyncio.sleep(trial.seconds)
            calm.set()
            await killing
            stop.set()
        verdict = await judge(client, load.instances, load.tallying.logs, Ledger(trial.ledger_path))
        return verdict, load.errors.most_common(ERRORS_SHOWN_MAX)
    finally:
        await client.close()
