"""A transaction whose commit has an unknown outcome is resolved, however long that takes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from shardrt.errors import CommitUnknown, EpochFenced, StoreUnavailable
from shardrt.host.transactional import commit_once
from shardrt.store.transactions import OutcomeKey
from shardrt.testing.virtual import pass_time, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

KEY = OutcomeKey(0, "order", "x", 1)


class Torn:
    """Transactions of a server that goes away as it commits, and comes back after a while."""

    connection: Any = None

    def __init__(self, committed: bytes | None, refusals: int = 4) -> None:
        self._committed = committed
        self._refusals = refusals
        self.settled = 0

    async def outcome(self, key: OutcomeKey) -> bytes | None:
        return None

    @asynccontextmanager
    async def begin(self, key: OutcomeKey, epoch: int) -> AsyncIterator[Torn]:
        yield self

    async def commit(self, outcome: bytes) -> None:
        raise CommitUnknown("the connection broke")

    async def settle(self, key: OutcomeKey) -> bytes | None:
        self.settled += 1
        if self.settled <= self._refusals:
            raise StoreUnavailable("connection refused")
        return self._committed

    async def outcomes(self, partition: int) -> list[OutcomeKey]:
        return []

    async def forget(self, keys: Sequence[OutcomeKey]) -> None:
        pass


async def pay(_: Any) -> Raw:
    return Raw(b'"paid"')


def test_a_commit_that_was_made_is_found_when_the_server_is_back():
    assert run_virtual(commit_once(Torn(b'"paid"'), KEY, 1, pay)) == Raw(b'"paid"')


def test_one_that_was_not_made_is_a_failure():
    async def main() -> None:
        with pytest.raises(StoreUnavailable, match="was not committed"):
            await commit_once(Torn(None), KEY, 1, pay)

    run_virtual(main())


def test_what_cannot_be_found_out_is_left_to_the_next_owner():
    async def main() -> None:
        with pytest.raises(EpochFenced, match="cannot be found out"):
            await commit_once(Torn(b'"paid"', refusals=1000), KEY, 1, pay)

    run_virtual(main())


def test_it_is_found_out_though_the_time_of_the_attempt_is_over():
    async def main() -> None:
        paying = asyncio.create_task(commit_once(Torn(b'"paid"'), KEY, 1, pay))
        await pass_time(0.2)
        paying.cancel()
        assert await paying == Raw(b'"paid"')

    run_virtual(main())
