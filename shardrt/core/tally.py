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

    def is_empty(self) -> bool:
        """Whether nothing of note has happened, as most often."""
        return not (
            self.started
            or self.ended
            or self.events_raised
            or self.timers_created
            or self.timers_fired
        )

    def clear(self) -> None:
        """Forget everything."""
        self.started.clear()
        self.ended.clear()
        self.events_raised = self.timers_created = self.timers_fired = 0
