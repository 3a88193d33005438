"""The whole history of an execution: what the store holds, and the newest events in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from shardrt.core.codec import decode_history, encode_history
from shardrt.errors import RecordCorrupt, ShardrtError
from shardrt.store.base import ExecutionKey, HistoryChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from shardrt.core.history import HistoryEvent
    from shardrt.core.partition import Partition
    from shardrt.core.state import Instance
    from shardrt.host.gathering import Gathering


class HistoryReader:
    """Reads histories of instances that are in memory."""

    __slots__ = (
        "_at_hand",
        "_core",
        "_gathering",
        "_packed",
        "_tasks",
    )

    def __init__(self, gathering: Gathering, partition: Partition) -> None:
        self._gathering = gathering
        self._core = partition
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_hand: dict[str, Sequence[HistoryChunk]] = {}
        """What was loaded with instances, for their next turn."""
        self._packed: dict[str, HistoryChunk] = {}
        """The newest events of instances that have ended, as the next checkpoint will store them.

        That is one object in place of a hundred, which would be cold by then: writing and
        freeing those took a twelfth of the time of a short instance."""

    def pack(self, instance: Instance) -> None:
        """Put the tail of an instance that has ended into the form in which it is stored.

        Not while a checkpoint is under way, which is going to cut the tails that it has seen, and
        not what was rewound at once: it would be packed again when it ends, in place of this.
        """
        tail, instance_id = instance.tail, instance.instance_id
        if tail and instance.is_final and self._core.instances.get(instance_id) is instance:
            seq = instance.history_length - len(tail)
            events = encode_history(tail)
            self._packed[instance_id] = HistoryChunk(
                instance_id, instance.execution_id, seq, events
            )
            instance.tail = []

    def packed(self, instance: Instance) -> HistoryChunk | None:
        """Return what was packed of the current execution and is not stored yet, if anything."""
        chunk = self._packed.get(instance.instance_id)
        if chunk is None or chunk.execution_id == instance.execution_id:
            return chunk
        self.unpack(chunk)  # it was replaced or rewound
        return None

    def unpack(self, chunk: HistoryChunk) -> None:
        """Drop what was packed: it is stored now, or of no use any more."""
        if self._packed.get(chunk.instance_id) is chunk:
            del self._packed[chunk.instance_id]

    def purged(self, instance_id: str) -> None:
        """Drop what was packed of an instance that is purged."""
        self._packed.pop(instance_id, None)

    def _unsaved(self, instance: Instance) -> list[HistoryEvent]:
        """Return the newest events, those that memory has."""
        chunk = self.packed(instance)
        return [*(decode_history(chunk.events) if chunk is not None else ()), *instance.tail]

    def in_memory(self, instance_id: str) -> list[HistoryEvent] | None:
        """Return the history if no event of it has left memory."""
        instance = self._core.instances[instance_id]
        unsaved = self._unsaved(instance)
        return unsaved if len(unsaved) == instance.history_length else None

    def keep(self, instance_id: str, chunks: Sequence[HistoryChunk]) -> None:
        """Have the chunks at hand that were loaded with an instance."""
        self._drop(instance_id)
        self._at_hand[instance_id] = chunks
        self._gathering.at_hand_bytes += _size_of(chunks)

    def _drop(self, instance_id: str) -> Sequence[HistoryChunk]:
        chunks = self._at_hand.pop(instance_id, ())
        self._gathering.at_hand_bytes -= _size_of(chunks)
        return chunks

    def forget(self) -> None:
        """Drop what is at hand, as no turn wants it."""
        if self._at_hand:
            for instance_id in list(self._at_hand):
                self._drop(instance_id)

    def take(self, instance_id: str) -> list[HistoryEvent] | None:
        """Return the history if it is in memory or at hand, where it is no more after that."""
        whole = self.in_memory(instance_id)
        chunks = self._drop(instance_id)
        if whole is not None or not chunks:
            return whole
        instance = self._core.instances[instance_id]
        unsaved = self._unsaved(instance)
        stored = instance.history_length - len(unsaved)
        try:
            events = _joined(chunks)
        except RecordCorrupt:
            return None  # whoever reads it says so
        if chunks[0].execution_id != instance.execution_id or len(events) < stored:
            return None
        return events[:stored] + unsaved

    def read(self, instance_id: str) -> Coroutine[Any, Any, list[HistoryEvent] | None]:
        """Return what reads all events of the execution that is current now.

        It gives None if that execution was replaced or purged meanwhile, and raises
        `StoreError` or `RecordCorrupt`. The events may be newer than what is durable, never
        older.
        """
        # Not in the coroutine: the instance may be evicted, or begin its next execution, before
        # that runs.
        instance = self._core.instances[instance_id]
        key = ExecutionKey(self._core.state.partition, instance_id, instance.execution_id)
        return self._read(key, self._unsaved(instance), instance.history_length)

    async def _read(
        self, key: ExecutionKey, tail: list[HistoryEvent], length: int
    ) -> list[HistoryEvent] | None:
        stored = length - len(tail)
        if not stored:
            return tail
        chunks = (await self._gathering.history(key)).found
        # A checkpoint that landed meanwhile has stored part of our tail as well.
        events = _joined(chunks)
        if len(events) >= stored:
            return events[:stored] + tail
        current = self._core.instances.get(key.instance_id)
        if current is None or current.execution_id != key.execution_id:
            return None
        raise RecordCorrupt(f"has {len(events)} of {stored} events")

    def encoded(self, instance_id: str, then: Callable[[Raw | ShardrtError | None], None]) -> None:
        """Call `then` with the history as JSON, at once if it is in memory; else see `read`."""

        def encode(events: list[HistoryEvent] | ShardrtError | None) -> None:
            then(Raw(encode_history(events)) if isinstance(events, list) else events)

        self.whole(instance_id, encode)

    def whole(
        self, instance_id: str, then: Callable[[list[HistoryEvent] | ShardrtError | None], None]
    ) -> None:
        """Call `then` with the history, at once if it is in memory; else see `read`."""
        whole = self.in_memory(instance_id)
        if whole is not None:
            then(whole)
            return
        reading = self.read(instance_id)

        async def read() -> None:
            try:
                events = await reading
            except ShardrtError as error:
                then(error)
            else:
                then(events)

        task = asyncio.get_running_loop().create_task(read())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _size_of(chunks: Sequence[HistoryChunk]) -> int:
    return sum(len(each.events) for each in chunks)


def _joined(chunks: Sequence[HistoryChunk]) -> list[HistoryEvent]:
    events: list[HistoryEvent] = []
    for chunk in chunks:
        events[chunk.seq :] = decode_history(chunk.events)
    return events
