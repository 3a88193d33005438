"""Ends of links that remember what arrived."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.links.base import Link


class End:
    """Listens at one end of a link."""

    def __init__(self) -> None:
        self.link: Link
        self.messages: list[Any] = []
        self.batches: list[int] = []
        self.opened = 0
        self.closed = 0
        self.news = asyncio.Event()
        self.on_batch: Callable[[list[Any]], None] = lambda _: None

    def accept(self, link: Link) -> End:
        self.link = link
        self.opened += 1
        self.news.set()
        return self

    def on_messages(self, messages: list[Any]) -> None:
        self.messages += messages
        self.batches.append(len(messages))
        self.news.set()
        self.on_batch(messages)

    def on_closed(self) -> None:
        self.closed += 1
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()
