"""The database time of stores that have no server: this machine's wall clock."""

from __future__ import annotations

import time


def wall_clock_us() -> int:
    """Return microseconds since 1970 UTC."""
    return time.time_ns() // 1000
