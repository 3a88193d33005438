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


async def test_a_caller_who_gives_up_leaves_the_attempt_to_connect_to_the_next():
    """Of two servers the first may be dead, which takes longer to learn than a caller waits."""
    attempts, slow = 0, asyncio.Event()

    async def refused_in_the_end() -> NoReturn:
        nonlocal attempts
        attempts += 1
        await slow.wait()
        raise psycopg.OperationalError("connection refused")

    lane = Lane(parse_url("postgresql://localhost/db"), refused_in_the_end)
    lane.start()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lane.run(b"", tuple)
    slow.set()
    with pytest.raises(StoreUnavailable, match="refused"):
        await lane.run(b"", tuple)
    assert attempts == 1


@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_caller_who_waits_for_a_connection_is_told_of_the_end(has_begun: bool):
    connecting = asyncio.Event()

    async def never() -> NoReturn:
        connecting.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    lane = Lane(parse_url("postgresql://localhost/db"), never)
    lane.start()
    waiting = asyncio.ensure_future(lane.run(b"", tuple))
    if has_begun:
        await connecting.wait()
    else:
        await asyncio.sleep(0)  # the caller's turn, before that of the attempt
        assert lane._opening
    lane.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting
