"""Questions about the hub, answered from the read model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from shardrt.core.ids import partition_of
from shardrt.core.requests import Refusal
from shardrt.errors import ShardrtError
from shardrt.host.quarantine import (
    entity_snapshot_of_row,
    limit_snapshot_of_row,
    snapshot_of_row,
)
from shardrt.links.admin import (
    CountInstances,
    EntityPage,
    LimitPage,
    ListEntities,
    ListInstances,
    ListLimits,
    Question,
    SnapshotPage,
)
from shardrt.links.messages import Answer, Ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.config import Settings
    from shardrt.store.base import Filter, Page, Store

_question = msgspec.json.Decoder(Question)


class Queries:
    """Runs them beside everything else, a few at a time."""

    def __init__(self, store: Store, settings: Settings, partitions: int) -> None:
        self._store = store
        self._partitions = partitions
        self._page_max = settings.limits.page_size_max
        self._places = asyncio.Semaphore(4)
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, ask: Ask, answer: Callable[[Answer], None]) -> None:
        """Answer later."""
        task = asyncio.get_running_loop().create_task(self._answer(ask, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Drop what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _answer(self, ask: Ask, answer: Callable[[Answer], None]) -> None:
        try:
            question = _question.decode(ask.question)
            async with self._places:
                result = await self._result(question)
            answer(Answer(ask.seq, Raw(msgspec.json.encode(result))))
        except msgspec.MsgspecError as error:
            answer(Answer(ask.seq, refusal=Refusal("ProtocolViolation", str(error))))
        except ShardrtError as error:
            answer(Answer(ask.seq, refusal=Refusal(error.code, str(error), 1.0)))

    async def _result(self, question: Question) -> object:
        match question:
            case ListInstances(where, limit, token):
                page = await self._page(where, limit, token, entities=False)
                snapshots = [
                    snapshot_of_row(row, partition_of(row.instance_id, self._partitions))
                    for row in page.rows
                ]
                return SnapshotPage(tuple(snapshots), page.token)
            case ListEntities(where, limit, token):
                page = await self._page(where, limit, token, entities=True)
                found = [
                    entity_snapshot_of_row(row, partition_of(row.instance_id, self._partitions))
                    for row in page.rows
                ]
                return EntityPage(tuple(found), page.token)
            case ListLimits(where, limit, token):
                where = msgspec.structs.replace(where, limits=True)
                page = await self._page(where, limit, token, entities=False)
                limits = [
                    limit_snapshot_of_row(row, partition_of(row.instance_id, self._partitions))
                    for row in page.rows
                ]
                return LimitPage(tuple(limits), page.token)
            case CountInstances(where):
                return await self._store.count(where)
            case _:
                return None

    async def _page(self, where: Filter, limit: int, token: str | None, *, entities: bool) -> Page:
        where = msgspec.structs.replace(where, entities=entities)
        limit = max(1, min(limit, self._page_max))
        return await self._store.query(where, limit=limit, token=token)
