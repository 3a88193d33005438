"""When to look at which instance again: a heap with lazy deletion.

The truth about timers is in the instances; this is only an index of it, rebuilt after recovery.
An item that the instance does not confirm any more is skipped when it comes up.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DUE_MAX = 253_402_300_799_000_000
"""The end of the year 9999. Later times would not fit the columns of a store."""
WHOLE = -2
"""Task id of an item that stands for an instance not in memory: load it, then look again."""

Item = tuple[int, str, int]
"""(due, instance id, task id)"""


class Timers:
    """All timers of a partition, earliest first."""

    __slots__ = (
        "_compact_at",
        "_heap",
    )

    def __init__(self) -> None:
        self._heap: list[Item] = []
        self._compact_at = 1024

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: int, instance_id: str, task_id: int) -> None:
        """Index one timer."""
        heappush(self._heap, (due, instance_id, task_id))

    def next_due(self) -> int | None:
        """Return when the earliest item is due, confirmed or not."""
        return self._heap[0][0] if self._heap else None

    def pop(self, now: int) -> Item | None:
        """Remove and return the earliest item due by `now`."""
        if self._heap and self._heap[0][0] <= now:
            return heappop(self._heap)
        return None

    def compact(self, confirmed: Callable[[Item], bool]) -> None:
        """Drop what is not confirmed, if the heap has doubled since it was last done.

        Without this, timers cancelled long before they are due would pile up.
        """
        if len(self._heap) < self._compact_at:
            return
        # Instances that come and go leave an item each time: one of each kind is enough.
        self._heap = [item for item in dict.fromkeys(self._heap) if confirmed(item)]
        heapify(self._heap)
        self._compact_at = max(1024, 2 * len(self._heap))
