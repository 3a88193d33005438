"""What a supervisor decides: when to start a child again, and which shard hosts what.

Pure: the facts are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How fast a dead child is replaced."""

    delay_s_min: float = 0.25
    """Before the second start in a row; the first is immediate."""
    delay_s_max: float = 30.0
    uptime_s_healthy: float = 30.0
    """A child that lived this long died of something new."""
    stillbirths_max: int = 4
    """A child that has never come up in this many starts will not come up at all."""


@dataclass(slots=True)
class Restarts:
    """The deaths of one child."""

    deaths: int = 0
    """In a row, without a healthy life between."""
    total: int = 0
    ever_ready: bool = False

    def died(self, policy: RestartPolicy, *, uptime_s: float, was_ready: bool) -> float | None:
        """Return how long to wait before the next start, or None to give up."""
        self.total += 1
        self.ever_ready = self.ever_ready or was_ready
        if not self.ever_ready and self.total >= policy.stillbirths_max:
            return None
        if was_ready and uptime_s >= policy.uptime_s_healthy:
            self.deaths = 0
        self.deaths += 1
        if self.deaths == 1:
            return 0.0
        return min(policy.delay_s_max, policy.delay_s_min * 2.0 ** min(self.deaths - 2, 30))


def choose_shard(partition: int, loads: Mapping[int, int]) -> int:
    """Return the shard with the fewest partitions; on a tie spread by partition number.

    Args:
        partition: which is to be hosted.
        loads: partitions per shard that can host, not empty.
    """
    least = min(loads.values())
    candidates = sorted(shard for shard, load in loads.items() if load == least)
    return candidates[partition % len(candidates)]


def surplus(hosted: Mapping[int, Sequence[int]]) -> list[int]:
    """Return which partitions should move so that no two shards differ by more than one.

    Args:
        hosted: partitions by shard, for every shard that can host.
    """
    loads = {shard: sorted(partitions) for shard, partitions in hosted.items()}
    moved: list[int] = []
    while loads:
        fullest = max(loads, key=lambda shard: len(loads[shard]))
        emptiest = min(loads, key=lambda shard: len(loads[shard]))
        if len(loads[fullest]) - len(loads[emptiest]) <= 1:
            break
        partition = loads[fullest].pop()
        moved.append(partition)
        # Counted, but not to be moved twice: that happens only if it stays the last.
        loads[emptiest].insert(0, partition)
    return moved
