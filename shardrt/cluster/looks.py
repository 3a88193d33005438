"""Asking for a look at the hub when routes lead nowhere: soon at first, then ever less often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S_MIN = 0.1
"""The shortest time between two looks; doubles while nothing changes."""
LOOK_S_MAX = 1.0


class Looks:
    """Passes on complaints about routes, but not each: a look is a query."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._next_at = 0.0
        self._pause_s = LOOK_S_MIN

    def complain(self) -> None:
        """Ask for a look, unless one was asked for just now."""
        now = self._loop.time()
        if now >= self._next_at:
            self._next_at = now + self._pause_s
            self._pause_s = min(LOOK_S_MAX, 2 * self._pause_s)
            self._look()

    def changed(self) -> None:
        """Note that routes have changed: the next complaint is a new one."""
        self._pause_s = LOOK_S_MIN
