"""What a store must not take back: a database restored from a backup, or a fail-over that lost.

Every renewal looks at the hub, one after the other, so each view must be at least as new as the
one before, and as the claims that were answered before it was asked for. Epochs and LSNs only
grow. Where they do not, what hosts have in memory is of a future that did not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from shardrt.cluster.holdings import Holdings
    from shardrt.store.base import View


@dataclass(frozen=True, slots=True)
class Known:
    """What the next view must not contradict."""

    identity: str = ""
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Partition → epoch, commit LSN."""

    @classmethod
    def of(cls, view: View, holdings: Holdings) -> Self:
        """Return what is known once a view was taken in; what is held was claimed by now."""
        held = {partition: each.epoch for partition, each in holdings.held.items()}
        positions = {
            row.partition: (max(row.epoch, held.get(row.partition, 0)), row.commit_lsn)
            for row in view.partitions
        }
        return cls(view.identity, positions)

    def contradicted_by(self, view: View) -> str:
        """Return what a later view contradicts, or nothing."""
        if self.identity and view.identity and view.identity != self.identity:
            return f"its data is {view.identity}, it was {self.identity}"
        found = {row.partition: row for row in view.partitions}
        for partition, (epoch, commit_lsn) in self.positions.items():
            row = found.get(partition)
            if row is None:
                return f"partition {partition} is gone"
            if row.epoch < epoch:
                return f"partition {partition} is at epoch {row.epoch}, it was at {epoch}"
            if row.commit_lsn < commit_lsn:
                return f"partition {partition} is at LSN {row.commit_lsn}, it was at {commit_lsn}"
        return ""
