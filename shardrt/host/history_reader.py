"""The whole history of an execution: what the store holds, and the newest events in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Raw

from shardrt.core.codec import decode_history, encode_history
from shardrt.errors import ShardrtError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.history import HistoryEvent
    from shardrt.core.partition import Partition
    from shardrt.store.base import Instances


class HistoryReader:
    """Reads histories of instances that are in memory."""

    def __init__(self, store: Instances, partition: Partition) -> None:
        self._store = store
        self._core = partition
        self._tasks: set[asyncio.Task[None]] = set()

    def in_memory(self, instance_id: str) -> list[HistoryEvent] | None:
        """Return the history if no event of it has left memory."""
        instance = self._core.instances[instance_id]
        if len(instance.tail) == instance.history_length:
            return list(instance.tail)
        return None

    async def read(self, instance_id: str) -> list[HistoryEvent]:
        """Return all events of the execution that is current now.

        Raises `StoreError`. The events may be newer than what is durable, never older.
        """
        whole = self.in_memory(instance_id)
        if whole is not None:
            return whole
        instance = self._core.instances[instance_id]
        tail = list(instance.tail)
        stored = instance.history_length - len(tail)
        partition = self._core.state.partition
        chunks = await self._store.history(partition, instance_id, instance.execution_id)
        events: list[HistoryEvent] = []
        for chunk in chunks:
            # A checkpoint that landed meanwhile has stored part of our tail as well.
            events[chunk.seq :] = decode_history(chunk.events)
        return events[:stored] + tail

    def encoded(self, instance_id: str, then: Callable[[Raw | ShardrtError], None]) -> None:
        """Call `then` with the history as JSON, at once if it is in memory."""
        whole = self.in_memory(instance_id)
        if whole is not None:
            then(Raw(encode_history(whole)))
            return

        async def read() -> None:
            try:
                then(Raw(encode_history(await self.read(instance_id))))
            except ShardrtError as error:
                then(error)

        task = asyncio.get_running_loop().create_task(read())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
