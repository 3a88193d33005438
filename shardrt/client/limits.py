"""Limits as clients see them: how many are at work, and how many wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from shardrt.client.views import to_datetime
from shardrt.core.limiter import limit_and_key, limiter_id
from shardrt.links.admin import LimitPage, ListLimits
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from shardrt.client.filters import Asks
    from shardrt.links.admin import LimitSnapshot

_decode_page = msgspec.json.Decoder(LimitPage).decode

PAGE_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """A limit, or one key of it, as of its last checkpoint (a second ago at most)."""

    limiter_id: str
    """What `purge` takes."""
    name: str
    key: str | None
    concurrency: int | None
    rate: int | None
    per: timedelta | None
    holders: int
    """Attempts that have a slot."""
    waiting: int
    """Attempts that wait for one."""
    waiting_since: datetime | None
    """Since when the first in line waits."""
    next_at: datetime | None
    """When the rate lets the next one through, if somebody waits for that."""
    partition: int
    reason: str
    """Why it is quarantined; empty if it is not."""


async def limit_page(asked: Asks, name: str | None, limit: int, token: str | None) -> LimitPage:
    """Return one page of limits: all, or those of one name with their keys."""
    where = Filter(limits=True, id_prefix=None if name is None else limiter_id(name))
    page = _decode_page(await asked.ask(ListLimits(where, limit, token)))
    # Names may begin alike.
    limits = [each for each in page.limits if name in {None, limit_and_key(each.limiter_id)[0]}]
    return LimitPage(tuple(limits), page.token)


async def all_limits(asked: Asks, name: str | None) -> AsyncIterator[LimitStatus]:
    """Iterate over limits, by pages."""
    token: str | None = None
    while True:
        page = await limit_page(asked, name, PAGE_SIZE, token)
        for each in page.limits:
            yield limit_status_of(each)
        if (token := page.token) is None:
            return


def limit_status_of(found: LimitSnapshot) -> LimitStatus:
    """Return what a limiter's row tells, for people."""
    name, key = limit_and_key(found.limiter_id)
    numbers = found.numbers
    return LimitStatus(
        limiter_id=found.limiter_id,
        name=name,
        key=key,
        concurrency=numbers.concurrency,
        rate=numbers.rate,
        per=None if numbers.rate is None else timedelta(microseconds=numbers.per),
        holders=found.holders,
        waiting=found.waiting,
        waiting_since=None if found.waiting_since is None else to_datetime(found.waiting_since),
        next_at=None if found.next_at is None else to_datetime(found.next_at),
        partition=found.partition,
        reason=found.reason,
    )
