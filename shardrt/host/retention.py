"""Purging instances that ended long ago, a bounded batch at a time.

Purges are ordinary requests of this shard's own session, journaled like any other. Every
shard looks at the same list, oldest first, and purges what is in its own partitions.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shardrt.core.history import FINAL
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin, Purge
from shardrt.errors import ShardrtError
from shardrt.links.messages import Answer, Forward
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.config import RetentionSettings
    from shardrt.host.clock import Clock
    from shardrt.store.base import Instances

logger = logging.getLogger(__name__)


class Retention:
    """The sweeper of one shard."""

    def __init__(
        self,
        store: Instances,
        clock: Clock,
        settings: RetentionSettings,
        *,
        partitions: int,
        session: str,
        submit: Callable[[Forward, Callable[[Answer], None]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._partitions = partitions
        self._session = session
        self._submit = submit
        self._seq = 0
        self.purged = 0

    async def run(self, owned: Callable[[], set[int]]) -> None:
        """Sweep at intervals, until cancelled; return at once if nothing is ever purged."""
        if self._settings.completed_s <= 0:
            return
        while True:
            await asyncio.sleep(self._settings.sweep_interval_s)
            try:
                await self.sweep(owned())
            except ShardrtError as error:
                logger.warning("cannot look for instances to purge: %s", error)

    async def sweep(self, owned: set[int]) -> int:
        """Purge one batch; return how many instances it had."""
        before = self._clock.now() - int(self._settings.completed_s * 1e6)
        where = Filter(status=tuple(sorted(FINAL)), completed_to=before)
        page = await self._store.query(where, limit=self._settings.sweep_batch_max)
        mine = [
            (partition, row.instance_id)
            for row in page.rows
            if (partition := partition_of(row.instance_id, self._partitions)) in owned
        ]
        await asyncio.gather(*(self._purge(*each) for each in mine))
        return len(mine)

    async def _purge(self, partition: int, instance_id: str) -> None:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._seq += 1
        # NB: `low` is this very number: a purge that was not answered is found again.
        origin = Origin(self._session, self._seq, self._seq)

        def take(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._submit(Forward(self._seq, partition, origin, instance_id, Purge()), take)
        if (await answered).refusal is None:
            self.purged += 1
