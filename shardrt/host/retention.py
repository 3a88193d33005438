"""Purging instances that ended long ago, a bounded batch at a time.

Purges are ordinary requests of this shard's own session, journaled like any other. Every
shard looks at the same list, oldest first, and purges what is in its own partitions.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shardrt.core.history import FINAL, Status
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin, Purge
from shardrt.errors import ShardrtError
from shardrt.links.messages import Answer, Forward
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.config import RetentionSettings
    from shardrt.host.clock import Clock
    from shardrt.store.base import InstanceRow, Instances

logger = logging.getLogger(__name__)


PAGES_MAX = 20
"""So many pages are looked at in a sweep."""


def _ages_of(settings: RetentionSettings) -> dict[float, set[Status]]:
    """Return at which age which statuses are purged; those that never are, are left out."""
    of_their_own = {
        Status.FAILED: settings.failed_s,
        Status.TERMINATED: settings.terminated_s,
        Status.CANCELED: settings.terminated_s,
    }
    ages: dict[float, set[Status]] = {}
    for status in FINAL:
        age_s = of_their_own.get(status)
        age_s = settings.completed_s if age_s is None else age_s
        if age_s > 0:
            ages.setdefault(age_s, set()).add(status)
    return ages


class Retention:
    """The sweeper of one shard."""

    def __init__(
        self,
        store: Instances,
        clock: Clock,
        settings: RetentionSettings,
        *,
        partitions: int,
        name: str,
        submit: Callable[[Forward, Callable[[Answer], None]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._partitions = partitions
        self._session = f"retention {name} {clock.now()}"
        self._submit = submit
        self._seq = 0
        self.purged = 0
        self._ages = _ages_of(settings)

    async def run(self, owned: Callable[[], set[int]]) -> None:
        """Sweep at intervals, until cancelled; return at once if nothing is ever purged."""
        if not self._ages:
            return
        while True:
            await asyncio.sleep(self._settings.sweep_interval_s)
            try:
                await self.sweep(owned())
            except ShardrtError as error:
                logger.warning("cannot look for instances to purge: %s", error)

    async def sweep(self, owned: set[int]) -> int:
        """Purge one batch per age; return how many instances there were."""
        now = self._clock.now()
        count = 0
        for age_s, status in self._ages.items():
            names = tuple(sorted(status))
            where = Filter(status=names, completed_to=now - int(age_s * 1e6))
            mine = await self._find(where, owned)
            await asyncio.gather(*(self._purge(row) for row in mine))
            count += len(mine)
        return count

    async def _find(self, where: Filter, owned: set[int]) -> list[InstanceRow]:
        """Return what is to be purged here: the oldest that are in our own partitions.

        Others purge what is in theirs, unless nobody has them at present: then there may be
        any number of those before ours.
        """
        mine: list[InstanceRow] = []
        batch, token = self._settings.sweep_batch_max, None
        for _ in range(PAGES_MAX):
            page = await self._store.query(where, limit=batch, token=token)
            mine += [row for row in page.rows if self._partition_of(row) in owned]
            token = page.token
            if token is None or len(mine) >= batch:
                break
        return mine[:batch]

    def _partition_of(self, row: InstanceRow) -> int:
        return partition_of(row.instance_id, self._partitions)

    async def _purge(self, row: InstanceRow) -> None:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._seq += 1
        # NB: `low` is this very number: a purge that was not answered is found again.
        origin = Origin(self._session, self._seq, self._seq)

        def take(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        request = Purge(execution_id=row.execution_id)
        partition = self._partition_of(row)
        self._submit(Forward(self._seq, partition, origin, row.instance_id, request), take)
        if (await answered).refusal is None:
            self.purged += 1
