"""Partitions that somebody serves, but where nobody can be reached: their owner has no address.

So it is with two programs on one store that were not given `listen`: one owns everything, and
the other one can do nothing. So it is for a while, too, when a program has crashed and was
started again, until the lease of its former life ends; that is told apart by its not being
renewed. What is about to be handed over is no problem. Pure: judged by views of the hub alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shardrt.cluster.holdings import desired_owners, live_owners
from shardrt.cluster.identity import owner_name

if TYPE_CHECKING:
    from shardrt.store.base import View

logger = logging.getLogger(__name__)

ADVICE = "give each program that shares a store `listen=` (or `host.advertise`), or run only one"


class Reach:
    """What a host cannot reach for want of an address."""

    def __init__(self) -> None:
        self.problem = ""
        """What cannot be reached, and what to do about it; empty if all can."""
        self._hidden: dict[int, str] = {}
        """Partition → its owner, if that has no address."""
        self._first_seen: dict[str, int] = {}
        """Such an owner → when its lease was to end when it was first seen."""
        self._staying: set[str] = set()
        """Those that have renewed it since, and are to go on owning what they do."""

    def look(self, view: View, me: str) -> None:
        """Take in a new view; log that there is such an owner, or that it is over."""
        live = live_owners(view).keys() - {me}
        ends = {
            owner: host.expires_at
            for host in view.hosts
            if (owner := owner_name(host.host_id, host.incarnation)) in live and not host.address
        }
        self._hidden = {row.partition: row.owner for row in view.partitions if row.owner in ends}
        desired = desired_owners(view) if self._hidden else []
        kept = [owner for partition, owner in self._hidden.items() if desired[partition] == owner]
        owners = set(kept)
        self._first_seen = {owner: self._first_seen.get(owner, ends[owner]) for owner in owners}
        self._staying = {owner for owner in owners if ends[owner] > self._first_seen[owner]}
        names = ", ".join(sorted(owner.rpartition("/")[0] for owner in owners))
        self._tell(
            f"{len(kept)} partitions are owned by host {names}, which runs, or did a moment ago, "
            f"and has no address to be reached at: {ADVICE}"
            if kept
            else ""
        )

    def _tell(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        if self.problem and not before:
            logger.warning("requests cannot be served here: %s", self.problem)
        elif before and not self.problem:
            logger.warning("requests can be served here: every owner can be reached")

    def why(self, partition: int) -> str:
        """Return why a partition cannot be reached; empty if it can, or nobody serves it."""
        owner = self._hidden.get(partition)
        if owner is None:
            return ""
        return (
            f"partition {partition} is owned by host {owner.rpartition('/')[0]}, which has no "
            f"address to be reached at: {ADVICE}"
        )

    def will_last(self, partition: int) -> bool:
        """Whether it is of no use to try again soon: its owner runs, and is to go on."""
        return self._hidden.get(partition) in self._staying
