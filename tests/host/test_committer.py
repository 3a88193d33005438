from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import CommitUnknown, StoreUnavailable
from shardrt.host.committer import GATHER_S, GATHER_TURNS, PACE_S, Committer
from shardrt.store.base import Append
from shardrt.testing.virtual import VirtualClock, VirtualLoop, pass_time, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


class Partition:
    """Always has another record, until it is told to have none."""

    def __init__(self, number: int, *, epoch: int = 1, records: int = 1) -> None:
        self.partition = number
        self.epoch = epoch
        self.records = records
        self.lsn = 0
        self.durable: list[int] = []
        self.broken: str | None = None
        self.bug: Exception | None = None

    def seal(self) -> Append | None:
        if self.bug is not None:
            raise self.bug
        if not self.records or self.broken is not None:
            return None
        self.records -= 1
        self.lsn += 1
        return Append(self.partition, self.epoch, self.lsn, b"record")

    def committed(self, lsn: int) -> None:
        self.durable.append(lsn)

    def discard(self, broken: str = "") -> None:
        self.broken = broken


class Journal:
    """Accepts what fits, unless a test has put something else in the way."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.positions: dict[int, tuple[int, int]] = {}
        self.errors: list[tuple[Exception, bool]] = []
        """What the next appends raise, and whether they take effect before."""
        self.position_errors: list[Exception] = []
        self.append_s = 0.1

    async def append(self, batch: Sequence[Append]) -> set[int]:
        self.batches.append([(each.partition, each.lsn) for each in batch])
        await pass_time(self.append_s)
        error, effect = self.errors.pop(0) if self.errors else (None, True)
        accepted = set()
        for each in batch:
            epoch, lsn = self.positions.get(each.partition, (1, 0))
            if effect and (epoch, lsn + 1) == (each.epoch, each.lsn):
                self.positions[each.partition] = (epoch, each.lsn)
                accepted.add(each.partition)
        if error is not None:
            raise error
        return accepted

    async def position(self, partition: int) -> tuple[int, int]:
        if self.position_errors:
            raise self.position_errors.pop(0)
        return self.positions.get(partition, (1, 0))

    def read(self, partition: int, after: int) -> AsyncIterator[tuple[int, bytes]]:
        raise NotImplementedError


def play(main: Callable[[Committer, Journal], Awaitable[None]]) -> None:
    async def run() -> None:
        journal = Journal()
        committer = Committer(journal, VirtualClock())
        committer.extend_lease(1_000.0)
        task = asyncio.get_running_loop().create_task(committer.run())
        await main(committer, journal)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    run_virtual(run())


def test_what_gathers_during_a_commit_is_the_next_one():
    async def main(committer: Committer, journal: Journal) -> None:
        one, two, three = (Partition(number) for number in range(3))
        committer.wake(one)
        await pass_time(0.05)
        committer.wake(two)
        committer.wake(three)
        await pass_time(0.5)
        assert journal.batches == [[(0, 1)], [(1, 1), (2, 1)]]
        assert [each.durable for each in (one, two, three)] == [[1], [1], [1]]

    play(main)


@pytest.mark.parametrize(
    ("partitions", "turns", "apart_s"),
    [(1, 7, 0.0), (80, 7, 0.0), (1, 8, PACE_S), (80, 8, PACE_S)],
)
def test_commits_of_many_turns_are_apart_and_gather_meanwhile(
    partitions: int, turns: int, apart_s: float
):
    async def main(committer: Committer, journal: Journal) -> None:
        journal.append_s = 0.0
        committer.on_sealed = lambda: turns
        busy = [Partition(number, records=2) for number in range(partitions)]
        for each in busy:
            committer.wake(each)
        await pass_time(0.0)
        for each in busy:
            committer.wake(each)
        if apart_s:
            await pass_time(apart_s * 0.9)
            assert len(journal.batches) == 1
            await pass_time(apart_s * 0.2)
        else:
            await pass_time(0.0)
        assert [len(batch) for batch in journal.batches] == [partitions, partitions]

    play(main)


@pytest.mark.parametrize(
    ("turns", "turn_s", "joins"),
    [
        (1, 0.0, True),
        (GATHER_TURNS - 1, 0.0, True),
        (GATHER_TURNS, 0.0, True),
        (GATHER_TURNS + 1, 0.0, False),
        (1_000, 0.0, False),
        (2, 0.9 * GATHER_S, True),
        (3, 1.1 * GATHER_S, False),
    ],
)
def test_what_is_about_to_join_a_commit_joins_it_if_that_is_soon(
    turns: int, turn_s: float, joins: bool
):
    async def main(committer: Committer, journal: Journal) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        one, two = Partition(1), Partition(2)
        left = turns

        def gathers() -> bool:
            nonlocal left
            left -= 1
            if left == 0:
                committer.wake(two)
            if turn_s:
                loop.spend(turn_s)  # as code that takes its time does
            return left > 0

        committer.gathers = gathers
        committer.wake(one)
        await pass_time(0.5)
        joined = [(2, 1)] if joins else []
        assert journal.batches == [[(1, 1), *joined]]
        assert one.durable == [1]

    play(main)


def test_it_tells_how_long_a_commit_has_been_under_way():
    async def main(committer: Committer, journal: Journal) -> None:
        assert committer.wait_s == 0.0
        journal.errors = [(StoreUnavailable("away"), False)] * 3
        committer.wake(Partition(0))
        await pass_time(0.05)
        assert 0.04 < committer.wait_s < 0.06
        await pass_time(0.45)
        assert 0.49 < committer.wait_s < 0.51
        await pass_time(2)
        assert committer.wait_s == 0.0

    play(main)


def test_an_unknown_commit_that_took_effect_is_not_sent_again():
    async def main(committer: Committer, journal: Journal) -> None:
        journal.errors = [(CommitUnknown("lost"), True)]
        partition = Partition(0)
        committer.wake(partition)
        await pass_time(1)
        assert journal.batches == [[(0, 1)]]
        assert partition.durable == [1]

    play(main)


def test_an_unknown_commit_that_did_not_is_sent_again():
    async def main(committer: Committer, journal: Journal) -> None:
        journal.errors = [(CommitUnknown("lost"), False)]
        partition = Partition(0)
        committer.wake(partition)
        await pass_time(1)
        assert journal.batches == [[(0, 1)], [(0, 1)]]
        assert partition.durable == [1]

    play(main)


def test_an_unknown_commit_is_not_guessed_while_the_store_is_away():
    async def main(committer: Committer, journal: Journal) -> None:
        journal.errors = [(CommitUnknown("lost"), True)]
        journal.position_errors = [StoreUnavailable("away")] * 4
        partition = Partition(0)
        committer.wake(partition)
        await pass_time(0.3)
        assert partition.durable == []
        assert committer.stuck_since_s is not None
        await pass_time(5)
        assert partition.durable == [1]
        assert committer.stuck_since_s is None

    play(main)


def test_a_store_that_is_away_gets_the_same_batch_until_it_takes_it():
    async def main(committer: Committer, journal: Journal) -> None:
        journal.errors = [(StoreUnavailable("away"), False)] * 3
        one, two = Partition(0), Partition(1)
        committer.wake(one)
        await pass_time(0.05)
        committer.wake(two)
        await pass_time(5)
        assert journal.batches == [[(0, 1)]] * 4 + [[(1, 1)]]
        assert one.durable == two.durable == [1]

    play(main)


def test_a_partition_that_is_somebody_elses_is_dropped_and_others_go_on():
    async def main(committer: Committer, journal: Journal) -> None:
        journal.positions[0] = (2, 0)
        lost, kept = Partition(0), Partition(1)
        committer.wake(lost)
        committer.wake(kept)
        await pass_time(1)
        assert (lost.broken, lost.durable) == ("", [])
        assert (kept.broken, kept.durable) == (None, [1])

    play(main)


def test_a_journal_that_is_elsewhere_stops_the_partition_loudly():
    async def main(committer: Committer, journal: Journal) -> None:
        journal.positions[0] = (1, 7)
        partition = Partition(0)
        committer.wake(partition)
        await pass_time(1)
        assert partition.broken == "journal is at 7, expected 1 or one less"

    play(main)


def test_a_bug_at_the_seal_stops_its_partition_only():
    async def main(committer: Committer, journal: Journal) -> None:
        buggy, sound = Partition(0), Partition(1)
        buggy.bug = ValueError("cannot be encoded")
        committer.wake(buggy)
        committer.wake(sound)
        await pass_time(1)
        assert buggy.broken == "ValueError: cannot be encoded"
        assert sound.durable == [1]

    play(main)


def test_nothing_is_sealed_without_a_lease():
    async def main(committer: Committer, journal: Journal) -> None:
        committer.extend_lease(float("-inf"))
        partition = Partition(0)
        committer.wake(partition)
        await pass_time(10)
        assert journal.batches == []
        committer.extend_lease(1_000.0)
        await pass_time(1)
        assert partition.durable == [1]

    play(main)
