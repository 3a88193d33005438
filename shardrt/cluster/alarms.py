"""Partitions that nobody serves, and for how long: said once when it is too long, then rarely.

Pure: what is served is judged by the latest view and by what this host holds, and time is an
argument. Of the partitions of other hosts only their leases are known here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardrt.cluster.holdings import Holdings, Phase, live_owners

if TYPE_CHECKING:
    from shardrt.store.base import Ownership, View

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""Beyond a TTL: so long may any single failure leave a partition without an owner."""
AGAIN_S = 600.0
"""Between two lines about one partition."""
_SERVED = {Phase.SERVING, Phase.MOVING, Phase.REVOKING}
"""A partition that is drained still answers."""


@dataclass(slots=True)
class Unserved:
    """A partition that nobody serves."""

    since_s: float
    told_s: float | None = None


@dataclass(slots=True)
class Alarms:
    """What this host knows of partitions that nobody serves."""

    ttl_s: float
    unserved: dict[int, Unserved] = field(default_factory=dict)

    def look(self, view: View, me: str, holdings: Holdings, now_s: float) -> None:
        """Take in a new view; log what has been unserved for too long, and what no longer is."""
        live = live_owners(view)
        for row in view.partitions:
            if _is_served(row, me, live, holdings):
                self._served(row.partition, now_s)
                continue
            unserved = self.unserved.setdefault(row.partition, Unserved(now_s))
            told_s = unserved.told_s
            if now_s - unserved.since_s > self.ttl_s + GRACE_S and (
                told_s is None or now_s - told_s >= AGAIN_S
            ):
                unserved.told_s = now_s
                logger.error(
                    "partition=%d has not been served for %.0f s: %s",
                    row.partition,
                    now_s - unserved.since_s,
                    _reason(row, live, holdings),
                )

    def _served(self, partition: int, now_s: float) -> None:
        unserved = self.unserved.pop(partition, None)
        if unserved is not None and unserved.told_s is not None:
            pause_s = now_s - unserved.since_s
            logger.warning("partition=%d is served again after %.0f s", partition, pause_s)

    def unserved_s(self, partition: int, now_s: float) -> float | None:
        """Return for how long nobody has served a partition, as far as is known here."""
        unserved = self.unserved.get(partition)
        return None if unserved is None else round(now_s - unserved.since_s, 1)


def _is_served(row: Ownership, me: str, live: dict[str, bool], holdings: Holdings) -> bool:
    if row.owner == me:
        holding = holdings.held.get(row.partition)
        return holding is not None and holding.phase in _SERVED
    return row.owner in live


def _reason(row: Ownership, live: dict[str, bool], holdings: Holdings) -> str:
    trouble = holdings.troubles.get(row.partition)
    if trouble is not None:
        return trouble.reason
    if row.owner is None:
        return "it has no owner"
    if row.owner not in live:
        return f"its owner {row.owner} is gone"
    holding = holdings.held.get(row.partition)
    return f"this host is {holding.phase} it" if holding else "this host has not taken it up"
