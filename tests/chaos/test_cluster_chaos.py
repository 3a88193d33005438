"""Nothing acknowledged is lost, nothing runs wrong, and somebody always takes over.

python -m pytest -m chaos -k cluster -s --cluster-seconds 1800 --seed 7
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from shardrt import Client
from shardrt.store.postgres.store import PostgresStore
from shardrt.testing.postgres import with_parameters
from tests.chaos.besieging import DECK, MORE_WITH_THREE, UNPLUGGING, Siege
from tests.chaos.cable import Cable
from tests.chaos.cluster import PARTITIONS, TTL_S, Cluster
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.test_chaos import DRAIN_S, ERRORS_SHOWN_MAX
from tests.chaos.verdict import Verdict, judge
from tests.chaos.watcher import Watcher
from tests.chaos.witness import GHOST, Witness
from tests.serving import cli

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from shardrt.testing.postgres import PostgresServer

    Show = Callable[[str], None]

TWO_HOSTS_SHARE = 0.4
COMPLETED_PER_S_MIN = 2.0
"""Throughput under fire, of about 20 that are asked for: far less than it is, so that a busy
machine does not matter, and far more than with a cluster that stands still."""
CALL_TIMEOUT_S = 20.0
FENCED_LOGS = ("taken by another owner", "is another owner's", "lease lost to another process")

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.pg,
    pytest.mark.proc,
    pytest.mark.slow,
    pytest.mark.runs(1),
    pytest.mark.timeout(0),
]


@dataclass(frozen=True)
class Trial:
    """How many hosts are besieged, and for how long."""

    directory: Path
    server: PostgresServer
    hosts: int
    seconds: float
    seed: int
    deck: Sequence[str]
    cables: Sequence[Cable] = ()
    """For hosts with networks of their own: one each."""


@pytest.mark.parametrize(("hosts", "share"), [(2, TWO_HOSTS_SHARE), (3, 1 - TWO_HOSTS_SHARE)])
def test_a_cluster_loses_nothing(  # noqa: PLR0917 - fixtures
    postgres: PostgresServer,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    hosts: int,
    share: float,
    seed: int,
    show: Show,
) -> None:
    seconds = float(request.config.getoption("--cluster-seconds")) * share
    deck = (*DECK, *MORE_WITH_THREE) if hosts > 2 else DECK
    counts = asyncio.run(besiege(Trial(tmp_path, postgres, hosts, seconds, seed, deck), show))
    # Whether a host itself tries, too, is chance: "commits refused" is for reading.
    assert counts["ghost's commits refused"] > 0, "no owner of long ago has tried to write"
    assert counts["effects repeated"] > 0, "nothing was killed in the middle of its work"


def test_a_cluster_loses_nothing_when_it_is_unplugged(
    postgres: PostgresServer, tmp_path: Path, cables: list[Cable], seed: int, show: Show
) -> None:
    trial = Trial(tmp_path, postgres, len(cables), 0, seed, UNPLUGGING, cables)
    asyncio.run(besiege(trial, show))


@pytest.fixture
def cables() -> Iterator[list[Cable]]:
    """Two networks, if this machine lets us make some."""
    made = []
    try:
        for number in range(2):
            cable = Cable(number)
            try:
                cable.lay()
            except OSError as error:
                pytest.skip(f"no networks of one's own here: {error}")
            made.append(cable)
        yield made
    finally:
        for cable in made:
            cable.remove()


async def besiege(trial: Trial, show: Show) -> Counter[str]:
    """Run load, siege and watcher side by side; then let everything end, and judge."""
    ledger_path = trial.directory / "ledger.jsonl"
    ledger_path.touch()
    dsn = trial.server.dsn
    witness, watcher = Witness(dsn), Watcher(TTL_S)
    async with AsyncExitStack() as stack:
        store = PostgresStore(with_parameters(dsn, application_name=GHOST))
        await store.open()
        stack.push_async_callback(store.close)
        await store.create(PARTITIONS)
        witness.install()
        cluster = Cluster(
            dsn,
            trial.directory,
            hosts=trial.hosts,
            cables=trial.cables,
            ledger=ledger_path,
            show=show,
        )
        await stack.enter_async_context(cluster)
        watching = asyncio.ensure_future(watcher.run(store))
        stack.push_async_callback(ended, watching)
        clients = [await stack.enter_async_context(await dial(cluster, n)) for n in range(3)]
        await watcher.until_whole()
        siege = Siege(cluster, watcher, random.Random(trial.seed), trial.deck)
        stack.push_async_callback(siege.end)
        load = Load(clients, random.Random(trial.seed + 1))
        besieged_s = await storm(load, siege, trial.seconds)
        logs = load.tallying.logs
        verdict = await judge(clients[0], load.instances, logs, Ledger(ledger_path))
        assert not watching.done(), watching.exception()
        verdict.faults += [*watcher.faults(), *witness.faults(), *damage(dsn)]
        witness.count(verdict.counts)
        for text in FENCED_LOGS:
            verdict.counts[f"logged '{text}'"] = cluster.logged(text)
        pace = Pace.of(load, besieged_s)
        blows = ", ".join(f"{count} {card}" for card, count in sorted(siege.blows.items()))
        show(
            f"\nseed {trial.seed}, {trial.hosts} hosts, {besieged_s:.0f} s, TTL {TTL_S:g} s: "
            f"{blows}\n{watcher.text()}\n{pace.text()}\n{verdict.text()}"
        )
        for error, count in load.errors.most_common(ERRORS_SHOWN_MAX):
            show(f"clients were told {count} times: {error}")
    check(siege, watcher, verdict, pace)
    return verdict.counts


@dataclass(frozen=True)
class Pace:
    """What clients had of the cluster while it was besieged."""

    per_s: float
    gap_s: float
    """The longest time in which nothing ended."""

    @classmethod
    def of(cls, load: Load, besieged_s: float) -> Pace:
        times = sorted(each.ended_s for each in load.instances if each.ended)
        times = [each for each in times if each <= times[0] + besieged_s]
        gap_s = max((b - a for a, b in itertools.pairwise(times)), default=besieged_s)
        return cls(len(times) / besieged_s, gap_s)

    def text(self) -> str:
        return (
            f"{self.per_s:.1f} instances per second, at least {COMPLETED_PER_S_MIN:g} are asked "
            f"for; nothing ended for at most {self.gap_s:.1f} s"
        )


def check(siege: Siege, watcher: Watcher, verdict: Verdict, pace: Pace) -> None:
    counts = verdict.counts
    assert not verdict.faults, verdict.text()
    assert set(siege.blows) == set(siege.deck)
    assert pace.per_s >= COMPLETED_PER_S_MIN
    # What found no fault must have had something to find.
    assert counts["commits"] > 0
    assert counts["checkpoints"] > 0
    assert watcher.takeovers > 0
    assert watcher.stale == counts["ghost's commits refused"] * 2
    for what in ("events acknowledged", "operations acknowledged", "transfers"):
        assert counts[what] > 0, what


async def dial(cluster: Cluster, number: int) -> Client:
    """Connect to all hosts, beginning with a certain one."""
    urls = cluster.urls
    turn = number % len(urls)
    return await Client.connect([*urls[turn:], *urls[:turn]], call_timeout_s=CALL_TIMEOUT_S)


async def storm(load: Load, siege: Siege, seconds: float) -> float:
    """Return for how many seconds it lasted."""
    over, stop = asyncio.Event(), asyncio.Event()
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop, DRAIN_S))
        besieging = group.create_task(siege.run(over))
        await asyncio.sleep(seconds)
        over.set()
        await besieging
        stop.set()
        return time.monotonic() - began_s
    raise AssertionError("unreachable")


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def damage(dsn: str) -> list[str]:
    """Return what `shardrt verify` has to say against the store."""
    done = cli("verify", "--store", dsn)
    return [] if done.returncode == 0 else [f"verify: {done.stdout[-2000:]} {done.stderr[-2000:]}"]
