"""Durations in a histogram of high dynamic range: three digits from 1 µs to an hour."""

from collections.abc import Iterable
from typing import Any, Self

from hdrh.histogram import HdrHistogram

HOUR_US = 3_600_000_000
DIGITS = 3
SHARES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}


class Latencies:
    """Counts durations; memory does not depend on how many."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._histogram: Any = HdrHistogram(1, HOUR_US, DIGITS)
        for each in seconds:
            self.record(each)

    @classmethod
    def decode(cls, *encoded: str) -> Self:
        """Return the sum of what `encode` returned."""
        self = cls()
        for each in encoded:
            self._histogram.decode_and_add(each)
        return self

    def record(self, seconds: float) -> None:
        """Count one; what is out of range counts as the nearest that is in it."""
        self._histogram.record_value(min(max(round(seconds * 1e6), 1), HOUR_US))

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def ms(self, percent: float) -> float:
        """Return the value in ms that this many percent do not exceed."""
        microseconds: int = self._histogram.get_value_at_percentile(percent)
        return round(microseconds / 1000, 3)

    def figures(self) -> dict[str, float]:
        """Return percentiles in ms."""
        found = {name: self.ms(percent) for name, percent in SHARES.items()}
        return found | {"max": self.ms(100.0)}

    def encode(self) -> str:
        """Return all of it as text, in the format of HdrHistogram."""
        return bytes(self._histogram.encode()).decode()
