"""`RetryPolicy`, as users write it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import msgspec

from shardrt.core.history import Retry
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""

US_PER_S = 1_000_000


def microseconds(duration: Duration) -> int:
    """Return a duration as whole microseconds."""
    if isinstance(duration, timedelta):
        return duration // timedelta(microseconds=1)
    return round(duration * US_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed activity or sub-orchestration is tried again. Times in seconds or timedelta.

    Raises:
        ConfigInvalid: a value makes no sense; all problems at once.
    """

    max_attempts: int = 3
    """Attempts in all, the first included."""
    first_interval: Duration = 1.0
    backoff: float = 2.0
    """Each delay is this many times the one before."""
    max_interval: Duration | None = 60.0
    timeout: Duration | None = None
    """No further attempt starts later than this after the first one."""
    jitter: float = 0.1
    """Each delay is multiplied by a random number from [1 - jitter, 1 + jitter]."""
    non_retryable: Sequence[str | type[BaseException]] = ()
    """Exceptions, or names of their classes, that are final at once."""

    def __post_init__(self) -> None:
        rules = [
            # Anything else would be in history for good, and not be readable from there.
            (type(self.max_attempts) is int, "max_attempts must be a whole number"),
            (self.max_attempts >= 1, "max_attempts must be at least 1"),
            (microseconds(self.first_interval) >= 0, "first_interval must not be negative"),
            (1.0 <= self.backoff < math.inf, "backoff must be a number from 1 on"),
            (self.max_interval is None or microseconds(self.max_interval) >= 0,
             "max_interval must not be negative"),
            (self.timeout is None or microseconds(self.timeout) > 0, "timeout must be positive"),
            (0.0 <= self.jitter <= 1.0, "jitter must be between 0 and 1"),
            (not isinstance(self.non_retryable, str), "non_retryable must be a list of names"),
        ]  # fmt: skip
        problems = [f"RetryPolicy: {text}" for holds, text in rules if not holds]
        if problems:
            raise ConfigInvalid(problems)
        object.__setattr__(self, "non_retryable", tuple(self.non_retryable))

    def as_retry(self) -> Retry:
        """Return the policy as it stands in history."""
        return Retry(
            max_attempts=self.max_attempts,
            first_interval=microseconds(self.first_interval),
            backoff=float(self.backoff),
            max_interval=None if self.max_interval is None else microseconds(self.max_interval),
            timeout=None if self.timeout is None else microseconds(self.timeout),
            jitter=float(self.jitter),
            non_retryable=tuple(
                name if isinstance(name, str) else name.__name__ for name in self.non_retryable
            ),
        )

    @classmethod
    def from_retry(cls, retry: Retry) -> RetryPolicy:
        """Return the policy that stands in history."""
        return cls(
            max_attempts=retry.max_attempts,
            first_interval=timedelta(microseconds=retry.first_interval),
            backoff=retry.backoff,
            max_interval=_timedelta(retry.max_interval),
            timeout=_timedelta(retry.timeout),
            jitter=retry.jitter,
            non_retryable=retry.non_retryable,
        )


def _timedelta(duration: int | None) -> timedelta | None:
    return None if duration is None else timedelta(microseconds=duration)


class CallOptions(TypedDict, total=False):
    """How an activity is to be tried, where that differs from how it was registered."""

    retry: RetryPolicy | None
    timeout: Duration | None
    heartbeat_timeout: Duration | None
    total_timeout: Duration | None
    limit_key: str | int | None


ONCE = Retry(max_attempts=1, first_interval=0)


@lru_cache(maxsize=256)
def attempts_of(
    registered: Retry | None,
    retry: RetryPolicy | None,
    heartbeat_timeout: Duration | None,
    total_timeout: Duration | None,
) -> Retry | None:
    """Return how attempts follow each other; what is not given is as it was registered."""
    policy = registered if retry is None else retry.as_retry()
    heartbeat = None if registered is None else registered.heartbeat
    total = None if registered is None else registered.total
    if heartbeat_timeout is not None:
        heartbeat = microseconds(heartbeat_timeout)
    if total_timeout is not None:
        total = microseconds(total_timeout)
    if heartbeat is None and total is None:
        return policy
    return msgspec.structs.replace(policy or ONCE, heartbeat=heartbeat, total=total)


def limit_problems(limits: Mapping[str, Duration | None]) -> list[str]:
    """Return what is wrong with limits of time, by their names."""
    return [
        f"{name} must be positive, not {limit}"
        for name, limit in limits.items()
        if limit is not None and microseconds(limit) <= 0
    ]
