"""A network as it can be: late, lossy, repeating, out of order. All by one seeded generator."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


@dataclass(slots=True, kw_only=True)
class Weather:
    """How the network is at present; may be changed at any time."""

    delay_s: tuple[float, float] = (0.0005, 0.0015)
    """Least and most. Messages with different delays overtake each other."""
    loss: float = 0.0
    """Probability that a message never arrives."""
    repetition: float = 0.0
    """Probability that a message arrives twice."""


class Air:
    """Carries whatever is sent through the weather of the moment."""

    def __init__(self, random: Random, weather: Weather) -> None:
        self.weather = weather
        self.lost = 0
        self.repeated = 0
        self._random = random

    def carry(self, arrive: Callable[[], None]) -> None:
        """Call `arrive` later: once, or not at all, or twice."""
        weather = self.weather
        if self._random.random() < weather.loss:
            self.lost += 1
            return
        self._send(arrive)
        if self._random.random() < weather.repetition:
            self.repeated += 1
            self._send(arrive)

    def _send(self, arrive: Callable[[], None]) -> None:
        delay_s = self._random.uniform(*self.weather.delay_s)
        asyncio.get_running_loop().call_later(delay_s, arrive)
