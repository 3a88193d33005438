"""How long to wait before dialling again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Backoff:
    """Delays that double up to a limit, each shortened by up to half at random.

    The randomness keeps the clients of a host that returns from all arriving at once.
    """

    min_s: float = 0.02
    max_s: float = 1.0
    rng: random.Random = field(default_factory=random.Random)
    _attempts: int = field(default=0, init=False)

    def next_s(self) -> float:
        """Return the delay before the next attempt."""
        delay_s = min(self.max_s, self.min_s * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return delay_s * (1.0 - self.rng.random() / 2)

    def reset(self) -> None:
        """Start over: the last attempt succeeded."""
        self._attempts = 0
