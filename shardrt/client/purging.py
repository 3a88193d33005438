"""Deleting instances that have ended, by conditions, a bounded batch at a time.

Each instance is purged by a request of its own to its owner, so nothing holds anything up, and
what was deleted stays deleted if this stops in the middle.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.client.filters import SnapshotPages
from shardrt.core.requests import Purge
from shardrt.errors import InstanceNotFinished, InstanceNotFound, InstanceQuarantined

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.client.explaining import Caller
    from shardrt.core.requests import Snapshot
    from shardrt.store.base import Filter

BATCH = 256


async def purge_where(
    caller: Caller, where: Filter, progress: Callable[[int], None] | None = None
) -> int:
    """Delete what fulfils the conditions and has ended; return how many instances.

    Args:
        caller: takes the requests.
        where: the conditions.
        progress: called after each batch, with how many were deleted so far.
    """
    purged = 0
    async for page in SnapshotPages(caller, where, BATCH):
        counts = await asyncio.gather(*(_purge(caller, each) for each in page))
        purged += sum(counts)
        if progress is not None:
            progress(purged)
    return purged


async def _purge(caller: Caller, listed: Snapshot) -> int:
    try:
        answer: Any = await caller.call(listed.instance_id, Purge(execution_id=listed.execution_id))
    except (InstanceNotFound, InstanceNotFinished):
        return 0  # the read model lags: purged meanwhile, or open again
    except InstanceQuarantined:
        return 0  # nobody can tell whether it has ended
    return int(answer.count)
