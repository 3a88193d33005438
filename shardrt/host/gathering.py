"""What the partitions of one shard read from the store, gathered: many keys, one query.

One query of a kind is in flight, and the next takes what was asked for meanwhile, of all
partitions. So one that is alone waits for nobody, and when many instances are wanted at once,
after a restart or out of a million that are parked, as many share a query as a page holds.

Who asks for more than fits into a query is answered for the first of it, and asks again.

If a query fails, everybody who shares it is told, and may ask again. What cannot be read must
not keep others from being read, so nothing is shared after a failure until queries succeed. It
may have been too much for the store as well, so for a while queries are half as large.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from shardrt.store.base import ExecutionKey, HistoryChunk, InstanceKey, InstanceRow, Whole
from shardrt.store.paging import PageSize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shardrt.store.base import Instances

KEYS_MAX = 256
"""Of one query: what it brings is decoded and replayed at once, and all else waits for that."""

AT_HAND_BYTES_MAX = 32 * 2**20
"""Of histories that were read with their instances, ahead of the turns that want them."""

K = TypeVar("K", bound=InstanceKey | ExecutionKey)
V = TypeVar("V")


class Part(NamedTuple, Generic[V]):
    """An answer."""

    taken: int
    """For how many of the keys, from the first on."""
    found: list[V]
    """In the order of keys."""


class Gathering:
    """Reads rows and histories for the partitions of one shard."""

    def __init__(self, store: Instances) -> None:
        self.at_hand_bytes = 0
        """Of the histories that were read ahead and not used yet."""
        self._rows: Queue[InstanceKey, InstanceRow] = Queue(
            store.load, lambda row: (row.instance_id,), lambda row: len(row.state)
        )
        self._whole: Queue[InstanceKey, Whole] = Queue(
            store.load_whole,
            lambda whole: (whole.row.instance_id,),
            lambda whole: len(whole.row.state) + sum(len(each.events) for each in whole.chunks),
        )
        self._chunks: Queue[ExecutionKey, HistoryChunk] = Queue(
            store.history,
            lambda chunk: (chunk.instance_id, chunk.execution_id),
            lambda chunk: len(chunk.events),
        )

    def may_read_ahead(self) -> bool:
        """Whether there is memory for histories before a turn wants them."""
        return self.at_hand_bytes < AT_HAND_BYTES_MAX

    def rows(self, keys: Sequence[InstanceKey]) -> asyncio.Future[Part[InstanceRow]]:
        """Return the rows that exist; see `store.base.Instances.load`."""
        return self._rows.ask(keys)

    def whole(self, keys: Sequence[InstanceKey]) -> asyncio.Future[Part[Whole]]:
        """Return rows and histories; see `store.base.Instances.load_whole`."""
        return self._whole.ask(keys)

    def history(self, key: ExecutionKey) -> asyncio.Future[Part[HistoryChunk]]:
        """Return the chunks of an execution, in order; see `store.base.Instances.history`."""
        return self._chunks.ask([key])

    def close(self) -> None:
        """Stop; what has been asked for is cancelled."""
        self._rows.close()
        self._whole.close()
        self._chunks.close()


class Ask(NamedTuple, Generic[K, V]):
    """What somebody waits for."""

    keys: Sequence[K]
    answer: asyncio.Future[Part[V]]


class Queue(Generic[K, V]):
    """Asks of one kind."""

    def __init__(
        self,
        fetch: Callable[[Sequence[K]], Awaitable[list[V]]],
        name_of: Callable[[V], tuple[str, ...]],
        size_of: Callable[[V], int],
    ) -> None:
        self._fetch = fetch
        self._name_of = name_of
        """What was found → its key, without the partition: an id belongs to one only."""
        self._size_of = size_of
        self._page = PageSize()
        self._most = KEYS_MAX
        """Of a query, lower after one has failed."""
        self._asks: deque[Ask[K, V]] = deque()
        self._task: asyncio.Task[None] | None = None

    def ask(self, keys: Sequence[K]) -> asyncio.Future[Part[V]]:
        """Return what is found under the first of these keys, as many as fit into a query."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Part[V]] = loop.create_future()
        self._asks.append(Ask(keys, answer))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return answer

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        while self._asks:
            self._asks.popleft().answer.cancel()

    async def _run(self) -> None:
        batch: list[Ask[K, V]] = []
        try:
            while batch := self._next():
                try:
                    await self._answer(batch)
                except Exception as error:  # noqa: BLE001 - whoever asked knows what to do
                    self._shrink(sum(len(ask.keys) for ask in batch))
                    for ask in batch:
                        if not ask.answer.done():
                            ask.answer.set_exception(error)
        finally:
            self._task = None
            for ask in batch:
                ask.answer.cancel()

    def _next(self) -> list[Ask[K, V]]:
        """Take what fits into a query, of asks that somebody still waits for."""
        batch: list[Ask[K, V]] = []
        room = min(self._page.rows, self._most)
        while self._asks and room > 0:
            ask = self._asks.popleft()
            if not ask.answer.done():
                batch.append(Ask(ask.keys[:room], ask.answer))
                room -= len(batch[-1].keys)
        return batch

    def _shrink(self, failed: int) -> None:
        """Have smaller queries after one for so many keys has failed."""
        self._page = PageSize(1)
        if failed > 1:  # else it is not its size
            self._most = failed // 2

    def _grow(self) -> None:
        """Have larger queries again, slowly: each that is too large may cost its timeout."""
        self._most = min(KEYS_MAX, self._most + self._most // 8 + 1)

    async def _answer(self, batch: list[Ask[K, V]]) -> None:
        keys = [key for ask in batch for key in ask.keys]
        found: dict[tuple[str, ...], list[V]] = {key[1:]: [] for key in keys}
        for value in await self._fetch(keys):
            found[self._name_of(value)].append(value)
        self._page.learn([sum(map(self._size_of, each)) for each in found.values()])
        self._grow()
        for ask in batch:
            if not ask.answer.done():
                values = [value for key in ask.keys for value in found[key[1:]]]
                ask.answer.set_result(Part(len(ask.keys), values))
