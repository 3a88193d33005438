"""Delays between attempts."""

import random

from hypothesis import given, strategies as st

from shardrt.links.backoff import Backoff


@given(st.integers(0, 1000), st.integers(1, 100))
def test_delays_grow_to_a_limit_and_vary(seed: int, attempts: int) -> None:
    backoff = Backoff(min_s=0.1, max_s=2.0, rng=random.Random(seed))
    for attempt in range(attempts):
        full = min(2.0, 0.1 * 2.0**attempt)
        assert full / 2 <= backoff.next_s() <= full
    backoff.reset()
    assert backoff.next_s() <= 0.1
