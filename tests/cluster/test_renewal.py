"""What a host may believe of a lease that may have ended before it was renewed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.cluster.lease import LeaseState
from shardrt.cluster.renewal import MARGIN, LeaseKeeper
from shardrt.errors import StoreUnavailable
from shardrt.store.base import Host, View
from tests.cluster.virtual_time import LoopClock, pass_time, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TTL_S = 9.0


class Rows:
    """A store that numbers its answers by their time, is away when told, and slow when told."""

    def __init__(self) -> None:
        self.away = False
        self.slow_s = 0.0
        self.renewals = 0
        self.shards = -1

    async def renew(self, host: Host, ttl: int) -> View:
        if self.away:
            raise StoreUnavailable("away")
        self.renewals += 1
        self.shards = host.shards
        number = self.renewals
        await pass_time(self.slow_s)
        return View(number, (), ())

    async def view(self) -> View:
        return View(0, (), ())


class Told:
    """What the host was told of its lease."""

    def __init__(self) -> None:
        self.looks: list[int] = []
        self.until_s = 0.0

    def renewed(self, view: View, until_s: float) -> None:
        self.looks.append(view.now)
        self.until_s = until_s

    def fenced(self, owner: str) -> None:
        raise AssertionError("nobody else has the id")

    def look_again_s(self) -> None:
        return None


def kept(test: Callable[[Rows, Told, LeaseKeeper], Awaitable[None]]) -> Callable[[], None]:
    """Run a test beside a keeper."""

    def run() -> None:
        async def main() -> None:
            rows, told = Rows(), Told()
            store: Any = rows
            host = Host("a", "", "http://a", 1, 0)
            keeper = LeaseKeeper(host, store=store, clock=LoopClock(), ttl_s=TTL_S)
            task = asyncio.ensure_future(keeper.run(told))
            await pass_time(0.1)
            await test(rows, told, keeper)
            task.cancel()

        run_virtual(main())

    return run


@kept
async def test_a_lease_that_holds_is_renewed_by_one_look(
    rows: Rows, told: Told, keeper: LeaseKeeper
) -> None:
    assert told.looks == [1]
    await pass_time(TTL_S)
    assert told.looks == list(range(1, rows.renewals + 1))
    assert keeper.state is LeaseState.HELD


@kept
async def test_a_lease_that_may_have_ended_is_not_believed_before_a_second_look(
    rows: Rows, told: Told, keeper: LeaseKeeper
) -> None:
    rows.away = True
    await pass_time(2 * TTL_S)
    assert not keeper.holds
    rows.away = False
    rows.slow_s = 0.5
    while rows.renewals == 1:
        await pass_time(0.1)
    await pass_time(0.5)
    # The first answer is there: whoever claimed while it was made is not in it.
    assert told.looks == [1]
    assert not keeper.holds
    await pass_time(0.6)
    assert told.looks[:2] == [1, 3]
    assert keeper.holds


@kept
async def test_an_answer_that_comes_after_the_end_counts_as_late(
    rows: Rows, told: Told, keeper: LeaseKeeper
) -> None:
    # Sent while the lease held, and nobody knows when it was carried out.
    rows.away = True
    await pass_time(TTL_S * (1 - MARGIN) - 1.0)
    assert keeper.holds
    rows.away, rows.slow_s = False, 1.5
    before = rows.renewals
    await pass_time(3.0)
    assert rows.renewals >= before + 2
    assert before + 1 not in told.looks


@kept
async def test_others_learn_at_once_of_how_many_shards_there_are(
    rows: Rows, told: Told, keeper: LeaseKeeper
) -> None:
    await pass_time(0.1)
    before = rows.renewals
    keeper.weigh(0)
    await pass_time(0.1)
    assert rows.renewals == before + 1
    assert rows.shards == 0
    keeper.weigh(0)
    await pass_time(0.1)
    assert rows.renewals == before + 1
