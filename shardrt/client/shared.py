"""One answer for all who wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.errors import ShardrtError


class Shared:
    """An answer to be, set like a future's. Who waits may be cancelled; the others wait on."""

    __slots__ = ("_is_done", "_waiters")

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[Raw]] = []
        self._is_done = False

    def done(self) -> bool:
        """Whether it is there. Nobody may begin to wait any more."""
        return self._is_done

    async def wait(self, loop: asyncio.AbstractEventLoop) -> Raw:
        """Return the answer; raise what it is, if it is an error."""
        assert not self._is_done, "whoever has it has handed it out"
        mine: asyncio.Future[Raw] = loop.create_future()
        self._waiters.append(mine)
        try:
            return await mine
        except asyncio.CancelledError:
            if mine in self._waiters:  # which is left to those who were told
                self._waiters.remove(mine)
            raise

    def set_result(self, answer: Raw) -> None:
        for waiter in self._end():
            waiter.set_result(answer)

    def set_exception(self, error: ShardrtError) -> None:
        for waiter in self._end():
            waiter.set_exception(error)

    def _end(self) -> list[asyncio.Future[Raw]]:
        self._is_done = True
        waiters, self._waiters = self._waiters, []
        return [each for each in waiters if not each.done()]
