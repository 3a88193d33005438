"""The commit connection of a Postgres store, while there is no server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn

import psycopg
import pytest

from shardrt.errors import StoreUnavailable
from shardrt.store.postgres import lane as lanes
from shardrt.store.postgres.lane import Lane
from shardrt.store.postgres.url import parse_url
from tests.waiting import eventually


async def test_callers_with_little_patience_do_not_put_off_the_next_attempt(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(lanes, "BACKOFF_S_MIN", 0.2)
    attempts = 0

    async def refused() -> NoReturn:
        nonlocal attempts
        attempts += 1
        raise psycopg.OperationalError("connection refused")

    lane = Lane(parse_url("postgresql://localhost/db"), refused)
    lane.start()
    with pytest.raises(StoreUnavailable):
        await lane.run(b"", tuple)

    async def tried_again() -> bool:
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(0.05):
                await lane.run(b"", tuple)
        return attempts > 1

    await eventually(tried_again)
