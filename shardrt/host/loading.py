"""Bringing instances and entities into memory, and what waits for that.

An input that concerns an instance must find it in memory if it exists. While an instance is
being read from the store, everything else about it queues up behind, in order. Whatever is
found is admitted at once, before any callback runs, so a callback that does not find its
instance in memory knows that there is none. For that to hold, nothing may be evicted that the
loader `keeps`: what a callback needs together with something that is still being read.
Others may, for what cannot be read is tried again for as long as that takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from shardrt.errors import StoreError
from shardrt.host.gathering import KEYS_MAX, Part
from shardrt.host.quarantine import admit_row
from shardrt.store.base import InstanceKey, Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shardrt.core.partition import Partition
    from shardrt.core.state import Resident
    from shardrt.host.gathering import Gathering

logger = logging.getLogger(__name__)

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 2.0


class Loader:
    """Reads instances of one partition, many at a time."""

    __slots__ = (
        "_admitted",
        "_failed",
        "_gathering",
        "_kept",
        "_partition",
        "_task",
        "_waiting",
        "_wanted",
        "on_loaded",
    )

    def __init__(
        self,
        gathering: Gathering,
        partition: Partition,
        *,
        admitted: Callable[[Resident, Whole], None],
        failed: Callable[[str], None],
    ) -> None:
        self._gathering = gathering
        self._partition = partition
        self._admitted = admitted
        self._failed = failed
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._kept: Counter[str] = Counter()
        """What callbacks need together with what they wait for, and how many of them do."""
        self._wanted: dict[str, bool] = {}
        """To be read, and whether with its history."""
        self._task: asyncio.Task[None] | None = None
        self.on_loaded: Callable[[float], None] = lambda _: None
        """Told how many seconds each query took."""

    @property
    def is_busy(self) -> bool:
        """Whether anything is being loaded."""
        return bool(self._waiting)

    def keeps(self, instance_id: str) -> bool:
        """Whether an instance must stay in memory, if it is there, for who waits for a load."""
        return instance_id in self._kept

    def is_loading(self, instance_id: str) -> bool:
        """Whether inputs of this instance must queue up."""
        return instance_id in self._waiting

    def load(self, instance_id: str, then: Callable[[], None], *, to_run: bool = False) -> None:
        """Call `then` once the instance is in memory if it exists, in the order of calls.

        If that is for it `to_run`, its history is read as well.
        """
        waiting = self._waiting.get(instance_id)
        if waiting is not None:
            waiting.append(then)
            return
        self._waiting[instance_id] = [then]
        self._wanted[instance_id] = to_run
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def load_all(
        self, instance_ids: Iterable[str], then: Callable[[], None], *, beside: Iterable[str] = ()
    ) -> None:
        """Call `then` once all of them have been looked up; they are to run.

        Until then nothing of them, or of what is `beside` them, leaves memory.
        """
        ids = set(instance_ids)
        kept = ids.union(beside)
        left = len(ids)
        self._kept.update(kept)

        def one() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                then()
                self._let_go(kept)

        for instance_id in sorted(ids):
            self.load(instance_id, one, to_run=True)

    def _let_go(self, kept: Iterable[str]) -> None:
        for instance_id in kept:
            self._kept[instance_id] -= 1
            if self._kept[instance_id] <= 0:  # less if `close` was before
                del self._kept[instance_id]

    def close(self) -> None:
        """Stop; callbacks not called yet never will be."""
        if self._task is not None:
            self._task.cancel()
        self._waiting.clear()
        self._kept.clear()
        self._wanted.clear()

    async def _run(self) -> None:
        try:
            await self._load_wanted()
        except Exception as error:
            logger.exception("partition=%d cannot load", self._partition.state.partition)
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            self._task = None

    async def _load_wanted(self) -> None:
        most, backoff_s = KEYS_MAX, BACKOFF_S_MIN
        while self._wanted:
            to_run = next(iter(self._wanted.values()))
            alike = (each for each, kind in self._wanted.items() if kind is to_run)
            ids = list(islice(alike, most))
            # A checkpoint may delete these while we read, and forget that they were purged.
            purged = {each for each in ids if each in self._partition.tombstones}
            try:
                part = await self._read(ids, to_run=to_run)
            except StoreError as error:
                partition = self._partition.state.partition
                logger.warning("partition=%d cannot load, trying again: %s", partition, error)
                if len(ids) == 1:
                    self._put_off(ids[0])
                await asyncio.sleep(backoff_s)
                most, backoff_s = 1, min(BACKOFF_S_MAX, backoff_s * 2)
            else:
                self._admit(ids[: part.taken], part.found, purged)
                most, backoff_s = KEYS_MAX, BACKOFF_S_MIN

    async def _read(self, ids: list[str], *, to_run: bool) -> Part[Whole]:
        clock = asyncio.get_running_loop().time
        keys = [InstanceKey(self._partition.state.partition, each) for each in ids]
        began_s = clock()
        if to_run and self._gathering.may_read_ahead():
            part = await self._gathering.whole(keys)
        else:
            rows = await self._gathering.rows(keys)
            part = Part(rows.taken, [Whole(row, ()) for row in rows.found])
        self.on_loaded(clock() - began_s)
        return part

    def _put_off(self, instance_id: str) -> None:
        """Let the others go first, and leave the history to the turn that needs it.

        With that, it may be too large to be read at once.
        """
        del self._wanted[instance_id]
        self._wanted[instance_id] = False

    def _admit(self, ids: list[str], found: list[Whole], purged: set[str]) -> None:
        for each in found:
            if each.row.instance_id not in purged:
                resident = admit_row(self._partition, each.row)
                if resident is not None:
                    self._admitted(resident, each)
        for gone in set(ids) - {each.row.instance_id for each in found}:
            self._partition.quarantined.pop(gone, None)
        for instance_id in ids:
            self._wanted.pop(instance_id, None)
            # NB: stays in `_waiting` until the last callback has run, so that what a
            # callback asks about this id queues up behind, not past the others.
            waiting = self._waiting.get(instance_id, [])
            while waiting:
                waiting.pop(0)()
            self._waiting.pop(instance_id, None)
