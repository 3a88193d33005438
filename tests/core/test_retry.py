"""When a failed attempt is followed by another one."""

from __future__ import annotations

import pytest

from shardrt.core.history import Failure, Retry
from shardrt.core.retry import DELAY_MAX, retry_at

FAILURE = Failure(type="OSError")
POLICY = Retry(max_attempts=5, first_interval=100)


def due(
    policy: Retry | None = POLICY,
    failure: Failure = FAILURE,
    *,
    attempt: int = 1,
    now: int = 1000,
    draw: float = 0.5,
) -> int | None:
    return retry_at(policy, failure, attempt=attempt, first_at=1000, now=now, draw=draw)


def test_without_a_policy_the_first_failure_is_final():
    assert due(None) is None


def test_each_delay_is_the_one_before_times_the_backoff():
    assert [due(attempt=n) for n in (1, 2, 3, 4)] == [1100, 1200, 1400, 1800]


def test_the_last_attempt_is_the_last():
    assert due(attempt=5) is None


def test_a_delay_is_never_longer_than_the_longest():
    policy = Retry(max_attempts=5, first_interval=100, max_interval=250)
    assert [due(policy, attempt=n) for n in (1, 2, 3, 4)] == [1100, 1200, 1250, 1250]


def test_a_failure_that_says_so_is_final():
    assert due(failure=Failure(type="OSError", non_retryable=True)) is None


def test_a_failure_that_the_policy_lists_is_final():
    policy = Retry(max_attempts=5, first_interval=100, non_retryable=("KeyError", "OSError"))
    assert due(policy) is None
    assert due(policy, Failure(type="ValueError")) == 1100


def test_no_attempt_starts_after_the_timeout():
    policy = Retry(max_attempts=5, first_interval=100, timeout=300)
    assert due(policy, now=1200) == 1300
    assert due(policy, now=1201) is None


@pytest.mark.parametrize(("draw", "at"), [(0.0, 1075), (0.5, 1100), (0.999, 1124)])
def test_jitter_is_picked_by_the_draw(draw: float, at: int):
    assert due(Retry(max_attempts=5, first_interval=100, jitter=0.25), draw=draw) == at


@pytest.mark.parametrize("backoff", [2.0, 10.0, 1e300])
def test_a_delay_beyond_all_bounds_is_a_century(backoff: float):
    policy = Retry(max_attempts=10_000, first_interval=10**9, backoff=backoff)
    assert due(policy, attempt=9_000) == 1000 + DELAY_MAX


@pytest.mark.parametrize("backoff", [2.0, 10.0])
def test_the_longest_delay_holds_also_where_the_arithmetic_ends(backoff: float):
    policy = Retry(max_attempts=10_000, first_interval=100, backoff=backoff, max_interval=500)
    assert due(policy, attempt=9_000) == 1500


def test_a_negative_delay_is_none():
    assert due(Retry(max_attempts=2, first_interval=-50)) == 1000


def test_every_time_that_comes_out_fits_64_bits():
    policy = Retry(max_attempts=2, first_interval=2**80, jitter=1.0, timeout=2**90)
    at = due(policy, now=4_000_000_000_000_000, draw=0.99)
    assert at is not None
    assert at < 2**63
