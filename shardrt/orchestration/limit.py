"""`Limit`, as users write it, and the key that a call has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from shardrt.core.history import Quota
from shardrt.core.limiter import RATE_MAX, Numbers, limiter_id
from shardrt.core.retry import DELAY_MAX
from shardrt.errors import ConfigInvalid, InputInvalid
from shardrt.orchestration.retry import Duration, microseconds

if TYPE_CHECKING:
    from shardrt.orchestration.definitions import ActivityDefinition

LimitKey: TypeAlias = Callable[[Any], str | int]
"""From the input of a call to the key that it counts for."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many attempts of activities may run at a time, or begin in a time, in the whole hub.

    All activities with a limit of the same name share it; with a key, each key has one for
    itself. What is over the limit waits in line, durably, first come, first served.

    Args:
        name: of the limit; no slash, at most 100 characters.
        concurrency: so many attempts at a time.
        rate: so many attempts begin in any `per`, at most 1000. Scale a larger number down:
            instead of 6000 in 60 s, say 100 in 1 s.
        per: seconds or timedelta.

    Raises:
        ConfigInvalid: a value makes no sense; all problems at once.
    """

    name: str
    concurrency: int | None = None
    rate: int | None = None
    per: Duration = 1.0

    def __post_init__(self) -> None:
        problems = [f"Limit {self.name!r}: {each}" for each in self._problems()]
        if problems:
            raise ConfigInvalid(problems)

    def _problems(self) -> list[str]:
        name, concurrency, rate = self.name, self.concurrency, self.rate
        problems = []
        if not (isinstance(name, str) and 0 < len(name) <= 100 and name.isprintable()):
            problems.append("name must be a printable text of 1 to 100 characters")
        elif "/" in name:
            problems.append("name must have no slash: that is where a key begins")
        if concurrency is None and rate is None:
            problems.append("concurrency or rate must be given")
        if concurrency is not None and not (_is_whole(concurrency) and concurrency >= 1):
            problems.append(f"concurrency must be a whole number from 1 on, not {concurrency!r}")
        if rate is not None and not (_is_whole(rate) and 1 <= rate <= RATE_MAX):
            problems.append(
                f"rate must be a whole number from 1 to {RATE_MAX}, not {rate!r}; "
                "scale a larger one down with its `per`: 6000 per 60 s is 100 per 1 s"
            )
        if not _is_window(self.per):
            problems.append(f"per must be from a microsecond to a century, not {self.per!r}")
        return problems

    def numbers(self) -> Numbers:
        """Return how much it allows, as it stands in history."""
        per = 0 if self.rate is None else microseconds(self.per)
        return Numbers(self.concurrency, self.rate, per)

    def quota(self, key: str | int | None = None) -> Quota:
        """Return what an activity needs a slot of, as it stands in history."""
        text = None if key is None else str(key)
        return Quota(limiter=limiter_id(self.name, text), numbers=self.numbers())


def _is_whole(number: object) -> bool:
    return type(number) is int


def _is_window(per: object) -> bool:
    if isinstance(per, timedelta):
        return 0 < microseconds(per) <= DELAY_MAX
    if not isinstance(per, (int, float)) or not math.isfinite(per):
        return False
    return 0 < microseconds(per) <= DELAY_MAX


def quota_of(activity: ActivityDefinition, call_input: object, key: str | int | None) -> Quota:
    """Return what a call of a limited activity needs a slot of.

    Args:
        activity: it has a limit.
        call_input: what its `limit_key` gets, unless the call says itself.
        key: what the call says.

    Raises:
        InputInvalid: the key is neither a text nor a whole number.
    """
    limit = activity.limit
    assert limit is not None, f"{activity.name} has no limit"
    if key is None and activity.limit_key is not None:
        key = activity.limit_key(call_input)
    elif key is None:
        return limit.quota()
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise InputInvalid(
            f"the limit_key of activity {activity.name!r} must be a text or a whole number, "
            f"not {key!r}"
        )
    return limit.quota(key)
