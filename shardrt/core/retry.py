"""When a failed attempt is followed by another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardrt.core.history import Failure, Retry

DELAY_MAX = 100 * 365 * 86400 * 1_000_000
"""A century in µs: every time that comes out fits 64 bits."""


def retry_at(
    policy: Retry | None, failure: Failure, *, attempt: int, first_at: int, now: int, draw: float
) -> int | None:
    """Return when the next attempt starts (µs), or None if this failure is final.

    The delay after attempt n is ``first_interval * backoff ** (n - 1)``, at most
    `max_interval`, times a factor from [1 - jitter, 1 + jitter] picked by `draw` in [0, 1).
    It is final if the attempts are used up, the failure's type is listed as not retryable
    or it says so itself, or the next attempt would start later than `timeout` after the first,
    or when the time for all of them is over.
    """
    if policy is None or attempt >= policy.max_attempts or failure.non_retryable:
        return None
    if failure.type in policy.non_retryable:
        return None
    delay = min(_delay(policy, attempt), DELAY_MAX)
    if policy.max_interval is not None:
        delay = min(delay, policy.max_interval)
    due = now + max(0, int(delay * (1 + policy.jitter * (2 * draw - 1))))
    if policy.timeout is not None and due > first_at + policy.timeout:
        return None
    if policy.total is not None and due >= first_at + policy.total:
        return None
    return due


def _delay(policy: Retry, attempt: int) -> float:
    try:
        return policy.first_interval * policy.backoff ** (attempt - 1)
    except OverflowError:
        return DELAY_MAX
