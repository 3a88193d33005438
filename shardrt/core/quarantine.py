"""Instances whose stored state cannot be read: nothing may touch them, and nobody else waits.

What is quarantined is found out by whoever reads rows, so it is not state: a later release, or
a repaired row, ends it. What was decided because of it is journaled, so that replay does not
depend on it:

- a message for such an instance is accepted, so that its stream goes on, and put aside;
- once the instance can be read, or was removed by force, what was put aside reaches it in
  order, or is taken as if there had never been such an instance.

More than `ASIDE_MAX` messages for one instance are dropped, and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.transitions import Transitions

if TYPE_CHECKING:
    from shardrt.core.requests import Snapshot
    from shardrt.core.state import PartitionState

ASIDE_MAX = 10_000


class Quarantine(Transitions):
    """The part of the transitions that is about instances nobody can read."""

    __slots__ = (
        "dropped",
        "quarantined",
    )

    def __init__(self, state: PartitionState) -> None:
        super().__init__(state)
        self.quarantined: dict[str, Snapshot] = {}
        """What is known of them; `reason` says why they are here."""
        self.dropped = 0
        """Messages for which there was no room aside."""

    def _put_aside(self, entry: e.PutAside) -> None:
        self._count_in(entry)
        waiting = self.state.aside.setdefault(entry.message.instance_id, [])
        if len(waiting) < ASIDE_MAX:
            waiting.append(entry)
        else:
            self.dropped += 1

    def _taken_up(self, entry: e.TakenUp) -> None:
        waiting = self.state.aside[entry.instance_id]
        first = waiting.pop(0)
        if not waiting:
            del self.state.aside[entry.instance_id]
        message = first.message
        if type(message) is m.RewindChild:
            child = self._called_before(message)
            if child is not None and child.status is h.Status.FAILED:
                # Rewinding needs the whole history, and a record of its own with the message:
                # the parent hears of the old failure, and may be rewound again.
                self._adopt(child, message, entry.at)
                return
        received = e.Received(entry.at, first.source, first.seq, message, entry.retry_at)
        self._take_message(received)

    def _removed(self, entry: e.Removed) -> None:
        instance_id = entry.instance_id
        self._settle(entry.origin, entry.at)
        self.quarantined.pop(instance_id, None)
        # By whoever replays this it can perhaps be read.
        self.instances.pop(instance_id, None)
        self.entities.pop(instance_id, None)
        self._withdraw(instance_id)
        self.entities_ready.pop(instance_id, None)
        self.dirty.pop(instance_id, None)
        self.deleted[instance_id] = None
        self.tombstones[instance_id] = None

    _ENTRIES: ClassVar[dict[type, Any]] = {
        **Transitions._ENTRIES,  # noqa: SLF001 - its own
        e.PutAside: _put_aside,
        e.TakenUp: _taken_up,
        e.Removed: _removed,
    }
