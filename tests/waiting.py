"""Waiting for a condition with a bound: what tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POLL_S = 0.005


def wait_until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    """Return once `condition()` is true; fail if that takes too long."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {condition}"
        time.sleep(POLL_S)


async def eventually(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], *, within_s: float = 10.0
) -> None:
    """Return once `condition()`, awaited if need be, is true; fail if that takes too long."""
    deadline_s = time.monotonic() + within_s
    while not await answer(condition()):
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {condition}"
        await asyncio.sleep(POLL_S)


async def answer(value: object) -> object:
    return await value if hasattr(value, "__await__") else value
