"""Group commit: whatever gathered while the last commit was in flight is the next one.

One loop per shard. A turn of it seals every partition that has news, appends their records
in one statement, and releases each partition's effects if its record is in. Nothing needs to be
tuned: under load batches grow, idle latency stays one round trip.

What the store answers is taken literally, never guessed (invariant I10):

- a partition missing from the answer, or a connection that broke in flight, is resolved by
  reading (epoch, commit LSN) back; the same bytes are sent again if they are not in;
- an epoch that is not ours means that the partition is somebody else's: its memory is dropped;
- a store that cannot be reached changes nothing: the same batch is sent until it can.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from shardrt.errors import CommitUnknown, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.host.clock import Clock
    from shardrt.store.base import Append, Journal

logger = logging.getLogger(__name__)

PACE_S = 0.0015
"""After a commit of many turns the next begins no sooner than that: it gathers more, and costs each
turn in it less."""
MANY = 8
"""With fewer a pause gathers nothing: whoever could add to the next commit waits for this one."""
GATHER_TURNS = 6
GATHER_S = 0.002
"""For so many turns of the loop, at most, a commit waits for what is about to join it, and for none
more after so much time."""
BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 2.0


class Committable(Protocol):
    """A partition as the committer sees it."""

    partition: int
    epoch: int

    def seal(self) -> Append | None:
        """Return the next record, or None if there is nothing to commit."""
        ...

    def committed(self, lsn: int) -> None:
        """Release what waited for the record."""
        ...

    def discard(self, broken: str = "") -> None:
        """Throw the memory away."""
        ...


class Committer:
    """Commits records of all partitions of a shard, one batch at a time."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._dirty: dict[Committable, None] = {}
        self._wakeup = asyncio.Event()
        self._not_before_s = float("-inf")
        self.lease_until_s = float("-inf")
        """Nothing is committed after this monotonic time: the lease may be somebody else's."""
        self.gathers: Callable[[], bool] = lambda: False
        """Whether more is about to join the next batch, in this turn of the loop or the next."""
        self.on_sealed: Callable[[], int] = lambda: 0
        """Called when a batch has been sealed, which may be empty; returns its turns."""
        self.on_committed: Callable[[], None] = lambda: None
        """Called after it, when effects have been released."""
        self.on_saved: Callable[[float], None] = lambda _: None
        """Told how many seconds each batch took that the store has taken."""
        self.stuck_since_s: float | None = None
        """Since when the store has not taken a batch; None if it does."""
        self._since_s: float | None = None
        """Since when a batch has been under way; None: there is none."""

    @property
    def wait_s(self) -> float:
        """How long the batch that is under way has been, in seconds."""
        return 0.0 if self._since_s is None else self._clock.monotonic_s() - self._since_s

    def wake(self, partition: Committable) -> None:
        """Let the partition take part in the next batch."""
        if not self._dirty:
            self._wakeup.set()
        self._dirty[partition] = None

    def extend_lease(self, until_s: float) -> None:
        """Allow commits until then."""
        self.lease_until_s = until_s
        if self._dirty:
            self._wakeup.set()

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            await self._gather()
            if self._clock.monotonic_s() >= self.lease_until_s:
                continue  # `extend_lease` wakes us again
            dirty, self._dirty = self._dirty, {}
            batch: dict[Committable, Append] = {}
            for partition in dirty:
                record = self._sealed(partition)
                if record is not None:
                    batch[partition] = record
            turns = self.on_sealed()
            if batch:
                self._since_s = began_s = self._clock.monotonic_s()
                await self._commit(batch)
                if turns >= MANY:
                    self._not_before_s = began_s + PACE_S
                self._since_s = None
            self.on_committed()

    async def _gather(self) -> None:
        """Wait until it is time for the next batch.

        What the last one released is taken along, if that is as quick. Else instances fall into
        two groups, of which each waits for the other's commits beside its own.
        """
        if (wait_s := self._not_before_s - self._clock.monotonic_s()) > 0:
            await asyncio.sleep(wait_s)
        until_s = float("inf")
        for _ in range(GATHER_TURNS):
            if not self.gathers() or (now_s := self._clock.monotonic_s()) >= until_s:
                break
            until_s = min(until_s, now_s + GATHER_S)
            await asyncio.sleep(0)
        self._wakeup.clear()

    @staticmethod
    def _sealed(partition: Committable) -> Append | None:
        try:
            return partition.seal()
        except Exception as error:
            # A bug stops this partition, and others go on.
            logger.exception("partition=%d stops", partition.partition)
            partition.discard(f"{type(error).__name__}: {error}")
            return None

    @staticmethod
    def _release(partition: Committable, lsn: int) -> None:
        try:
            partition.committed(lsn)
        except Exception as error:
            logger.exception("partition=%d stops", partition.partition)
            partition.discard(f"{type(error).__name__}: {error}")

    async def _commit(self, batch: dict[Committable, Append]) -> None:
        """Bring every record of the batch to its end: durable, or its partition dropped."""
        backoff_s = BACKOFF_S_MIN
        while batch:
            try:
                began_s = self._clock.monotonic_s()
                accepted = await self._journal.append(list(batch.values()))
                self.on_saved(self._clock.monotonic_s() - began_s)
                for partition in [p for p in batch if p.partition in accepted]:
                    self._release(partition, batch.pop(partition).lsn)
                await self._resolve(batch)
            except CommitUnknown as error:
                logger.warning("a commit has an unknown outcome, reading it back: %s", error)
                self._is_stuck()
                await self._resolve_patiently(batch)
            except StoreUnavailable as error:
                if self.stuck_since_s is None:
                    logger.warning("the store is not available, holding all work: %s", error)
                self._is_stuck()
                await asyncio.sleep(backoff_s)
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)
        if self.stuck_since_s is not None:
            waited_s = self._clock.monotonic_s() - self.stuck_since_s
            logger.warning("the store takes commits again after %.1f s", waited_s)
            self.stuck_since_s = None

    def _is_stuck(self) -> None:
        if self.stuck_since_s is None:
            self.stuck_since_s = self._clock.monotonic_s()

    async def _resolve_patiently(self, batch: dict[Committable, Append]) -> None:
        backoff_s = BACKOFF_S_MIN
        while batch:
            try:
                await self._resolve(batch)
            except StoreError:
                await asyncio.sleep(backoff_s)
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)
            else:
                return

    async def _resolve(self, batch: dict[Committable, Append]) -> None:
        """Find out what became of records that were not confirmed; keep those to send again."""
        for partition, record in list(batch.items()):
            epoch, lsn = await self._journal.position(partition.partition)
            if epoch != record.epoch:
                del batch[partition]
                partition.discard()
            elif lsn == record.lsn:
                del batch[partition]
                self._release(partition, lsn)
            elif lsn != record.lsn - 1:
                del batch[partition]
                partition.discard(f"journal is at {lsn}, expected {record.lsn} or one less")
