"""The histories that rewinding needs, read before the partition decides.

A message that rewinds a child waits for the child's history, and everything behind it in its
stream waits with it. What was read for a message stays until that is accepted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shardrt.core.messages import RewindChild
from shardrt.errors import RecordCorrupt, ShardrtError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.history import HistoryEvent
    from shardrt.core.partition import Partition
    from shardrt.core.state import Instance
    from shardrt.host.history_reader import HistoryReader
    from shardrt.links.messages import Deliver

logger = logging.getLogger(__name__)

RETRY_S = 0.5


class Rewinding:
    """Reads histories of failed instances of one partition."""

    __slots__ = (
        "_core",
        "_failed",
        "_read",
        "_reader",
    )

    def __init__(
        self, reader: HistoryReader, partition: Partition, *, failed: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._core = partition
        self._failed = failed
        self._read: dict[str, tuple[str, list[HistoryEvent]]] = {}
        """Instance → its execution, and all that happened in it."""

    def read(
        self,
        instance: Instance,
        then: Callable[[list[HistoryEvent] | RecordCorrupt | None], None],
    ) -> None:
        """Call `then` with the whole history, however long reading takes.

        With None if the instance is not what or where it was, and with the error if what is
        stored of the history is damaged.
        """
        instance_id, execution_id = instance.instance_id, instance.execution_id

        def is_there() -> bool:
            return self._core.instances.get(instance_id) is instance

        def take(history: list[HistoryEvent] | ShardrtError | None) -> None:
            if isinstance(history, ShardrtError) and not isinstance(history, RecordCorrupt):
                logger.warning("instance=%s cannot be rewound yet: %s", instance_id, history)
                asyncio.get_running_loop().call_later(RETRY_S, again)
                return
            is_same = is_there() and instance.execution_id == execution_id
            self._guarded(lambda: then(history if is_same else None))

        def again() -> None:
            if is_there():
                self._reader.whole(instance_id, take)
            else:
                self._guarded(lambda: then(None))

        again()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            logger.exception("partition=%d cannot rewind", self._core.state.partition)
            self._failed(f"{type(error).__name__}: {error}")

    def prepare(self, message: Deliver, then: Callable[[], None]) -> bool:
        """Return whether a delivery can be accepted; if not, read, then call `then`."""
        for instance in self._wanted(message):
            if self._history(instance) is None:
                self._read_for_message(instance, then)
                return False
        return True

    def _read_for_message(self, instance: Instance, then: Callable[[], None]) -> None:
        execution_id = instance.execution_id

        def keep(history: list[HistoryEvent] | RecordCorrupt | None) -> None:
            if isinstance(history, RecordCorrupt):
                # Its parent asks for it: an empty history stands for its beginning.
                logger.error("instance=%s begins anew: %s", instance.instance_id, history)
                history = []
            if history is not None:
                self._read[instance.instance_id] = execution_id, history
            then()

        self.read(instance, keep)

    def take(self, message: Deliver) -> dict[str, list[HistoryEvent]]:
        """Return the histories of the instances that a prepared delivery rewinds."""
        wanted = self._wanted(message)
        histories = {each.instance_id: self._history(each) or [] for each in wanted}
        for each in wanted:
            self._read.pop(each.instance_id, None)
        return histories

    def _wanted(self, message: Deliver) -> list[Instance]:
        rewinds = [each for each in message.messages if type(each) is RewindChild]
        failed = [self._core.to_rewind(each) for each in rewinds]
        return [each for each in failed if each is not None]

    def _history(self, instance: Instance) -> list[HistoryEvent] | None:
        execution_id, history = self._read.get(instance.instance_id, ("", []))
        if execution_id == instance.execution_id:
            return history
        return self._reader.in_memory(instance.instance_id)
