"""What has happened in a partition since somebody last looked: for statistics, not state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardrt.core.state import Instance


class Tally:
    """Taken and cleared by the host; a replay clears it, too."""

    __slots__ = ("ended", "events_raised", "started", "timers_created", "timers_fired")

    def __init__(self) -> None:
        self.started: list[str] = []
        """Names of the orchestrators of new instances."""
        self.ended: list[Instance] = []
        self.events_raised = 0
        self.timers_created = 0
        """By code; those of retries and delays do not count."""
        self.timers_fired = 0

    def clear(self) -> None:
        """Forget everything."""
        self.started.clear()
        self.ended.clear()
        self.events_raised = self.timers_created = self.timers_fired = 0
