"""The watcher: reads who owns what, many times a second, and knows for how long nobody did.

A partition is *orphaned* while it has no owner, its owner's lease is over, or its owner is one
that was just killed, frozen or cut off from the store: the tables do not know that yet, but whoever
struck does. Times are the database's.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardrt.store.base import Append

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.store.base import View
    from shardrt.store.postgres.store import PostgresStore

POLL_S = 0.03
SLACK_S = 5.0
"""How much longer than the TTL partitions may be without an owner."""
PATIENCE_S = 60.0
"""How long we go on waiting for an owner that is late already."""


@dataclass(frozen=True)
class Orphaned:
    """One time that a partition had no owner."""

    partition: int
    seconds: float
    """Since it lost its owner, or since the last blow, if that came later."""
    blow: str
    """The last one before it was owned again."""


class Watcher:
    """Looks until cancelled. `away` names owners that do not count."""

    def __init__(self, ttl_s: float) -> None:
        self.bound_s = ttl_s + SLACK_S
        self.away: set[str] = set()
        self.orphaned: list[Orphaned] = []
        self.takeovers = 0
        """How often an epoch has grown."""
        self.stale = 0
        """Writes under old epochs that we tried ourselves."""
        self.stale_accepted: list[str] = []
        self.looks = 0
        self.looked = asyncio.Event()
        self.view: View | None = None
        self._written: dict[int, int] = {}
        """For each partition the last epoch under which we saw a commit."""
        self.lost_at: dict[int, int] = {}
        """Since when each orphaned partition has been one."""
        self._blow = "start"
        self._blow_at = 0

    def strike(self, blow: str, *owners: str) -> None:
        """Note a blow that falls now, and who is away by it."""
        self._blow, self._blow_at = blow, self.view.now if self.view else 0
        self.away.update(owners)

    def owner_of(self, host_id: str) -> str:
        """Return what a host's present incarnation is called as an owner."""
        assert self.view is not None, "looked"
        rows = [each for each in self.view.hosts if each.host_id == host_id]
        return f"{host_id}/{rows[0].incarnation}" if rows else ""

    def served_by(self, host_id: str) -> int:
        """Return how many partitions a host serves: has owned, and committed to since."""
        assert self.view is not None, "looked"
        owner = self.owner_of(host_id)
        return sum(
            row.owner == owner and self._written.get(row.partition) == row.epoch
            for row in self.view.partitions
        )

    async def run(self, store: PostgresStore) -> None:
        while True:
            before, view = self.view, await store.view()
            self.look(view)
            if before is not None:
                await self.haunt(store, before, view)
            await asyncio.sleep(POLL_S)

    def look(self, view: View) -> None:
        """Take in a view."""
        self.looks += 1
        self.looked.set()
        before, self.view = self.view, view
        if before is not None:
            for old, new in zip(before.partitions, view.partitions, strict=True):
                if new.epoch == old.epoch and new.commit_lsn > old.commit_lsn:
                    self._written[new.partition] = new.epoch
        live = {f"{h.host_id}/{h.incarnation}" for h in view.hosts if h.expires_at > view.now}
        live -= self.away
        for row in view.partitions:
            if row.owner not in live:
                self.lost_at.setdefault(row.partition, view.now)
            elif row.partition in self.lost_at:
                since = max(self.lost_at.pop(row.partition), self._blow_at)
                seconds = (view.now - since) / 1_000_000
                self.orphaned.append(Orphaned(row.partition, seconds, self._blow))

    async def haunt(self, store: PostgresStore, before: View, view: View) -> None:
        """Try to write, as an owner whose time is over would, to all that has a new owner."""
        for old, new in zip(before.partitions, view.partitions, strict=True):
            if new.epoch > old.epoch > 0:
                self.takeovers += 1
                ghost = Append(new.partition, old.epoch, new.commit_lsn + 1, b"of long ago")
                self.stale += 2
                if await store.append([ghost]) or await store.release(new.partition, old.epoch):
                    self.stale_accepted.append(f"partition {new.partition} epoch {old.epoch}")

    async def until_whole(self) -> None:
        """Wait until every partition has an owner; what came too late is told by `faults`."""
        seen = self.looks + 1
        await self.until(
            lambda: self.looks > seen and not self.lost_at, within_s=self.bound_s + PATIENCE_S
        )

    async def until(self, condition: Callable[[], bool], *, within_s: float) -> None:
        """Look until a condition is met, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not condition():
                    self.looked.clear()
                    await self.looked.wait()

    def faults(self) -> list[str]:
        """Return what took too long, and what has no owner now."""
        late = [each for each in self.orphaned if each.seconds > self.bound_s]
        return [
            *(f"partition {e.partition}: no owner for {e.seconds:.1f} s ({e.blow})" for e in late),
            *(f"partition {partition}: has no owner" for partition in sorted(self.lost_at)),
            *(f"{each}: a write of an old owner was accepted" for each in self.stale_accepted),
        ]

    def text(self) -> str:
        """Return how long partitions were without an owner."""
        spans = sorted(each.seconds for each in self.orphaned) or [0.0]
        p50, p99 = (spans[min(len(spans) - 1, int(len(spans) * q))] for q in (0.5, 0.99))
        return (
            f"without an owner {len(self.orphaned)} times: p50 {p50:.2f} s, p99 {p99:.2f} s, "
            f"max {spans[-1]:.2f} s, allowed {self.bound_s:g} s; {self.looks} looks, "
            f"{self.takeovers} take-overs, {self.stale} stale writes tried by us, "
            f"{len(self.stale_accepted)} accepted"
        )
