"""Which of the traces that begin here are recorded: a share of them, but not too many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOW_BITS = 2**64 - 1
"""What the SDK's samplers by ratio look at, too."""


class Sampler:
    """Draws by the id of a trace, and holds back what is beyond a rate (a token bucket).

    Args:
        ratio: the share, 0 to 1.
        per_s_max: how many in a second, and how many at once after a pause; 0: any number.
        clock: monotonic seconds.
    """

    def __init__(
        self, ratio: float, per_s_max: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bound = round(ratio * (_LOW_BITS + 1))
        self._per_s = per_s_max
        self._burst = max(1.0, per_s_max)
        self._tokens = self._burst
        self._clock = clock
        self._at = clock()

    def takes(self, trace_id: int) -> bool:
        """Whether to record the trace; asked once for each."""
        if trace_id & _LOW_BITS >= self._bound:
            return False
        if not self._per_s:
            return True
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
