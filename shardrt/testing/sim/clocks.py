"""The clocks of one machine: they start anywhere, run a little fast or slow, and show any date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.host.clock import HubClock
from shardrt.testing.virtual import LOOK_S, true_now_us

if TYPE_CHECKING:
    from shardrt.testing.sim.processes import SimLoop


class Oscillator:
    """What a machine measures time with; shared by its processes."""

    def __init__(self, loop: SimLoop, *, start_s: float = 0.0, rate: float = 1.0) -> None:
        self.wall_skew_us = 0
        """How far the date that it shows is ahead of the true one; may jump at any time."""
        self._loop = loop
        self._start_s = start_s
        self._rate = rate

    def monotonic_s(self) -> float:
        """Return seconds since some moment."""
        return self._start_s + self._loop.time() * self._rate

    def wall_us(self) -> int:
        """Return the date, µs since 1970 UTC, right or wrong."""
        return true_now_us(self._loop) + self.wall_skew_us

    def look(self) -> float:
        """Return `monotonic_s`, which takes a little time."""
        self._loop.spend(LOOK_S)
        return self.monotonic_s()


class SimClock(HubClock):
    """The real clock of a process, on a machine's oscillator."""

    def __init__(self, oscillator: Oscillator) -> None:
        self._oscillator = oscillator
        super().__init__(oscillator.wall_us() - self._monotonic_ns() // 1000)

    def _monotonic_ns(self) -> int:  # of this machine, not of all
        return round(self._oscillator.monotonic_s() * 1_000_000) * 1000

    def monotonic_s(self) -> float:
        return self._oscillator.look()
