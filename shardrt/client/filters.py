"""Conditions on instances, and the pages of those that fulfil them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from shardrt.client.views import to_micros
from shardrt.core.history import Status
from shardrt.errors import InputInvalid
from shardrt.links.admin import ListInstances, SnapshotPage
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from msgspec import Raw

    from shardrt.core.requests import Snapshot
    from shardrt.links.admin import Question

_decode_page = msgspec.json.Decoder(SnapshotPage).decode


class Asks(Protocol):
    """Whoever can be asked about the hub."""

    async def ask(self, question: Question) -> Raw:
        """Return the answer's JSON."""
        ...


def status_of_text(text: str) -> Status:
    """Return the status of that name, in any case.

    Raises:
        InputInvalid: there is none.
    """
    for status in Status:
        if status.lower() == text.lower():
            return status
    known = ", ".join(Status)
    raise InputInvalid(f"no status {text!r}: give one of {known}")


def filter_of(  # noqa: PLR0913 - one per condition
    *,
    status: Status | str | Sequence[Status | str] | None = None,
    name: str | None = None,
    id_prefix: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    completed_from: datetime | None = None,
    completed_to: datetime | None = None,
    tags: dict[str, str] | None = None,
) -> Filter:
    """Return the conditions in the words of the store."""
    wanted = [status] if isinstance(status, str) else list(status or ())
    return Filter(
        status=tuple(status_of_text(each).value for each in wanted),
        name=name,
        id_prefix=id_prefix,
        created_from=_micros(created_from),
        created_to=_micros(created_to),
        completed_from=_micros(completed_from),
        completed_to=_micros(completed_to),
        tags=tags,
    )


def _micros(when: datetime | None) -> int | None:
    return None if when is None else to_micros(when)


async def page_of(asked: Asks, where: Filter, limit: int, token: str | None) -> SnapshotPage:
    """Return one page of instances."""
    return _decode_page(await asked.ask(ListInstances(where, limit, token)))


class SnapshotPages:
    """Iterates over all pages."""

    def __init__(self, asked: Asks, where: Filter, page_size: int) -> None:
        self._asked = asked
        self._where = where
        self._page_size = page_size

    async def __aiter__(self) -> AsyncIterator[tuple[Snapshot, ...]]:
        token = None
        while True:
            page = await page_of(self._asked, self._where, self._page_size, token)
            if page.instances:
                yield page.instances
            if page.token is None:
                return
            token = page.token
