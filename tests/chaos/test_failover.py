"""The primary of the store dies, and a standby takes its place.

A synchronous standby has all that was acknowledged. An asynchronous one lacks the last of it: then
exactly that is lost, and what is left is a hub in which nothing is half done.

python -m pytest -m chaos -k failover -s
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
import pytest

from shardrt import Client
from shardrt.store.base import era_of
from tests.chaos.app import SENDERS, Item
from tests.chaos.auditing import check_books
from tests.chaos.bank import Count, Tally, Transfer
from tests.chaos.kinds import KINDS
from tests.chaos.ledger import Ledger
from tests.chaos.load import Instance, Load
from tests.chaos.monkey import SCHEMA
from tests.chaos.pair import Pair
from tests.chaos.test_chaos import DRAIN_S, ERRORS_SHOWN_MAX
from tests.chaos.test_cluster_chaos import CALL_TIMEOUT_S, damage
from tests.chaos.verdict import Verdict, check_history, judge
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    Show = Callable[[str], None]

LOAD_S = 2.0
"""How long the load runs before and after the fail-over."""
ALONE_S = 1.0
"""How long there is no primary."""
RESUME_S_MAX = 20.0
"""How long after the promotion something must have ended again: a lease of 2 s, attempts to
connect to a silent server of 2 s each, and a machine that is busy with other work."""
ERA_PROMOTED = 2
"""As the timeline."""
NOTICED = ("the server is another one, or was promoted", "the store is not what it was")

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.pg,
    pytest.mark.proc,
    pytest.mark.slow,
    pytest.mark.runs(1),
    pytest.mark.timeout(300),
]


@asynccontextmanager
async def served_by(
    directory: Path, show: Show, *, synchronous: bool
) -> AsyncIterator[tuple[Pair, list[Client], Path]]:
    """Start servers and hosts, and a client for each host that prefers it."""
    ledger = directory / "ledger.jsonl"
    ledger.touch()
    async with Pair(directory, ledger, synchronous=synchronous, show=show) as pair:
        one, two = pair.urls
        async with (
            await Client.connect([one, two], call_timeout_s=CALL_TIMEOUT_S) as first,
            await Client.connect([two, one], call_timeout_s=CALL_TIMEOUT_S) as second,
        ):
            yield pair, [first, second], ledger


def test_failover_to_a_synchronous_standby_loses_nothing(
    tmp_path: Path, seed: int, show: Show
) -> None:
    asyncio.run(fail_over(tmp_path, seed, show))


async def fail_over(directory: Path, seed: int, show: Show) -> None:
    async with served_by(directory, show, synchronous=True) as (pair, clients, ledger):
        load = Load(clients, random.Random(seed))
        stop = asyncio.Event()
        loading = asyncio.ensure_future(load.run(stop, DRAIN_S))
        await asyncio.sleep(LOAD_S)
        await asyncio.to_thread(pair.lose_primary)
        await asyncio.sleep(ALONE_S)
        await asyncio.to_thread(pair.standby.promote)
        promoted_s = time.monotonic()
        waited_s = await resumed(load, promoted_s)
        await asyncio.sleep(LOAD_S)
        stop.set()
        await loading
        verdict = await judge(clients[0], load.instances, load.tallying.logs, Ledger(ledger))
        verdict.faults += damage(pair.standby.dsn)
        show(f"\nseed {seed}, resumed {waited_s:.1f} s after the promotion\n{verdict.text()}")
        for error, count in load.errors.most_common(ERRORS_SHOWN_MAX):
            show(f"clients were told {count} times: {error}")
        assert not verdict.faults, verdict.text()
        assert waited_s < RESUME_S_MAX
        check_resumed(pair)
        for what in ("events acknowledged", "operations acknowledged", "transfers"):
            assert verdict.counts[what] > 0, what


async def resumed(load: Load, promoted_s: float) -> float:
    """Return how long after a promotion something that had begun after it has ended."""
    known = len(load.instances)

    def ended() -> list[float]:
        return [each.ended_s for each in load.instances[known:] if each.ended]

    await eventually(ended, within_s=3 * RESUME_S_MAX)
    return min(ended()) - promoted_s


def check_resumed(pair: Pair) -> None:
    """Check that nothing was restarted, and that all was claimed anew."""
    for text in NOTICED:
        assert pair.logged(text) == len(pair.hosts), text
    for host in pair.hosts:
        assert host.served.running
        assert host.served.starts == 1
        assert "Traceback" not in host.served.stderr
    with psycopg.connect(pair.standby.dsn) as connection:
        epochs = connection.execute(f"SELECT epoch FROM {SCHEMA}.partitions").fetchall()
    assert {era_of(epoch) for (epoch,) in epochs} == {ERA_PROMOTED}


# -- what is lost with an asynchronous one ---------------------------------------------------------

ALONE = [kind for kind in KINDS if not kind.has_senders]
EACH = 3
"""Instances of each kind before the standby falls behind, and as many after it."""
COLLECTORS = 4
KEPT, LOST, LATER = range(3), range(3, 6), range(6, 9)
"""Numbers of events, and of operations of an entity: what the standby has, what it lacks, and what
came when it was the primary."""


@dataclass
class Book:
    """What clients have of the instances that the standby knows, and of those that it does not."""

    client: Client
    kept: list[Instance] = field(default_factory=list)
    collectors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def start(self, prefix: str) -> list[Instance]:
        instances = [
            Instance(kind, f"{prefix}-{kind.name}-{number}", self.client)
            for kind in ALONE
            for number in range(EACH)
        ]
        await asyncio.gather(
            *(
                self.client.start(each.kind.name, each.kind.input, instance_id=each.instance_id)
                for each in instances
            )
        )
        return instances

    async def tell(self, numbers: range, *, last: bool = False) -> None:
        """Have these numbers acknowledged by all collectors, and by the tally."""
        for number in numbers:
            for collector in self.collectors:
                for sender in range(SENDERS):
                    is_last = last and number == numbers[-1]
                    item = Item(sender, number, last=is_last)
                    await self.client.raise_event(collector, "item", item)
            await self.client.call_entity("@tally@kept", Tally.mark, number)


def test_failover_to_an_asynchronous_standby_loses_exactly_what_it_lacks(
    tmp_path: Path, show: Show
) -> None:
    asyncio.run(fall_back(tmp_path, show))


async def fall_back(directory: Path, show: Show) -> None:
    async with served_by(directory, show, synchronous=False) as (pair, clients, ledger):
        book = Book(clients[0])
        book.collectors = [f"collect-{number}" for number in range(COLLECTORS)]
        for each in book.collectors:
            await book.client.start("collect", instance_id=each)
        await book.tell(KEPT)
        book.kept = await book.start("kept")
        await asyncio.to_thread(pair.standby.wait_until_caught_up)
        pair.log_way.hold()
        # From here on all is of a future that will not have happened.
        await book.tell(LOST)
        book.lost = [each.instance_id for each in await book.start("lost")]
        for each in book.lost[: len(book.lost) // 2]:
            await book.client.handle(each).result(timeout=CALL_TIMEOUT_S)
        await asyncio.to_thread(pair.lose_primary)
        await asyncio.to_thread(pair.standby.promote)
        await book.tell(LATER, last=True)
        verdict = await verdict_on(book, ledger)
        count: Count = await book.client.call_entity("@tally@kept", Tally.look)
        assert count == Count(LATER[-1], [*LOST], [], [])
        verdict.faults += damage(pair.standby.dsn)
        show(f"\n{verdict.text()}")
        assert not verdict.faults, verdict.text()
        check_resumed(pair)


def test_failover_while_a_host_stays_with_the_old_primary_keeps_the_new_one_consistent(
    tmp_path: Path, show: Show
) -> None:
    """Nobody has shut the old one down, and a host cannot reach the new one.

    What that host acknowledges meanwhile is lost, which only shutting it down prevents. Nothing of
    it reaches the new one, and who has heard of both asks for nothing where it is lost.
    """
    asyncio.run(split(tmp_path, show))


async def split(directory: Path, show: Show) -> None:
    async with served_by(directory, show, synchronous=False) as (pair, clients, ledger):
        stays, goes = pair.hosts
        book = Book(clients[0])
        book.kept = await book.start("kept")
        await asyncio.to_thread(pair.standby.wait_until_caught_up)
        pair.log_way.hold()
        for way in (stays.new_way, goes.old_way):
            way.cut()
            way.hold()
        await asyncio.to_thread(pair.standby.promote)
        await eventually(lambda: owners(pair.standby.dsn) == {"b"}, within_s=RESUME_S_MAX)
        async with await Client.connect(stays.served.url, call_timeout_s=CALL_TIMEOUT_S) as led_on:
            astray = Book(led_on)
            strayed = await astray.start("astray")
            await asyncio.gather(
                *(led_on.handle(each.instance_id).result(timeout=DRAIN_S) for each in strayed)
            )
        lines = book.client._session._lines
        await eventually(lambda: lines._era == ERA_PROMOTED)  # as it has heard of the new one
        book.kept += await book.start("anew")
        # Each owns everything, in one of two histories.
        assert (owners(pair.primary.dsn), owners(pair.standby.dsn)) == ({"a"}, {"b"})
        await asyncio.to_thread(pair.primary.kill)
        stays.new_way.heal()
        await eventually(lambda: owners(pair.standby.dsn) == {"a", "b"}, within_s=RESUME_S_MAX)
        verdict = await verdict_on(book, ledger)
        for each in strayed:
            status = await book.client.get(each.instance_id)
            verdict.counts["astray and gone" if status is None else "astray and there"] += 1
            if status is not None:
                await book.client.handle(each.instance_id).result(timeout=DRAIN_S)
        verdict.faults += damage(pair.standby.dsn)
        show(f"\n{verdict.text()}")
        assert not verdict.faults, verdict.text()
        assert verdict.counts["astray and gone"] > 0, "it had nothing of its own"
        check_resumed(pair)


def owners(dsn: str) -> set[str]:
    """Return the ids of the hosts that own something, by the tables of one server."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(f"SELECT owner FROM {SCHEMA}.partitions").fetchall()
    return {(owner or "").partition("/")[0] for (owner,) in rows}


async def verdict_on(book: Book, ledger_path: Path) -> Verdict:
    """Compare what is there with what the standby had, and with what came later."""
    verdict = Verdict()
    for instance in book.kept:
        instance.result = await book.client.handle(instance.instance_id).result(timeout=DRAIN_S)
        if wrong := instance.kind.wrong(instance.result, instance.sent):
            verdict.faults.append(f"{instance.instance_id}: {wrong}")
    for instance_id in book.lost:
        if (status := await book.client.get(instance_id)) is not None:
            verdict.faults.append(f"{instance_id}: is {status.status}, the standby had not got it")
    numbers = [*KEPT, *LATER]
    for instance_id in book.collectors:
        items: list[dict[str, Any]] = await book.client.handle(instance_id).result(timeout=DRAIN_S)
        for sender in range(SENDERS):
            got = [each["number"] for each in items if each["sender"] == sender]
            if got != numbers:
                verdict.faults.append(f"{instance_id}: got {got} instead of {numbers}")
    ledger = Ledger(ledger_path)
    for instance_id in [*book.collectors, *(each.instance_id for each in book.kept)]:
        await check_history(verdict, book.client, instance_id, ledger)
    transfers = {
        each.instance_id: msgspec.convert(each.result, Transfer)
        for each in book.kept
        if each.kind.name == "transfer"
    }
    verdict.faults += await check_books(book.client, transfers)
    verdict.counts["effects repeated"] = ledger.repeated()
    return verdict
