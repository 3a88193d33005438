"""Clocks. The only module that reads one.

Three times, three names: `now` is hub time (database time, as well as this process knows it),
in µs since 1970 UTC, stamped on events and compared with timers; `monotonic_s` measures
durations and leases; the database's own `now()` alone decides who owns what.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final, Protocol

_MONOTONIC: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where there is such a clock: leases of others do so, too."""


# Bound at import: once orchestrators are guarded, the attributes of `time` are watched, and the
# host, which reads its clock several times per turn, would pay for a check that is not for it.
_clock_gettime = time.clock_gettime
_clock_gettime_ns = time.clock_gettime_ns


class Clock(Protocol):
    """Time as everything above the store sees it."""

    def now(self) -> int:
        """Return hub time, µs since 1970 UTC. Never ahead of the database, never backwards."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start, shared by all processes of a machine."""
        ...


class HubClock:
    """A clock that follows the database.

    Between corrections it runs on the monotonic clock, so that steps of the wall clock do not
    reach timers. Corrections come with each lease renewal, as lower bounds: the database's
    time was read before the answer arrived, so this clock can lag by a round trip, and a
    timer fires late rather than early.
    """

    def __init__(self, offset: int | None = None) -> None:
        wall = time.time_ns() // 1000
        self._offset = wall - self._monotonic_ns() // 1000 if offset is None else offset
        self._latest = 0
        self._is_guess = True
        """Until the database's time is known, this is the wall clock's, which may be hours off."""

    # No functions of ours, for code looks at clocks several times per turn.
    _monotonic_ns = staticmethod(partial(_clock_gettime_ns, _MONOTONIC))
    monotonic_s = staticmethod(partial(_clock_gettime, _MONOTONIC))

    def now(self) -> int:
        """Return hub time in µs; never less than before."""
        now = self._monotonic_ns() // 1000 + self._offset
        if now > self._latest:  # noqa: PLR1730 - hot
            self._latest = now
        return self._latest

    @property
    def offset(self) -> int:
        """Hub time minus monotonic time, µs."""
        return self._offset

    def correct(self, offset: int) -> None:
        """Adopt an offset measured elsewhere on this machine."""
        self._offset = offset
        if self._is_guess:
            self._is_guess = False
            self._latest = 0  # or a wall clock that is ahead would stop this one for so long

    def observe(self, database_now: int) -> None:
        """Adopt the database's time, just received."""
        self.correct(database_now - self._monotonic_ns() // 1000)
