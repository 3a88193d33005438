"""When a schedule is due: cron expressions in a time zone, or a fixed interval.

Pure arithmetic on times in µs since 1970 UTC. Cron follows Debian's rules for clock changes: a
time that a change skips is due right after it, a time that comes twice is due once, and
expressions with ``*`` or steps in their hours or minutes go by real time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from shardrt.errors import InputInvalid

Overlap: TypeAlias = Literal["skip", "queue", "allow", "replace"]
CatchUp: TypeAlias = Literal["none", "last", "all"]

SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to start, and when. Times and durations in µs."""

    orchestrator: str
    input: Any = None
    version: str | None = None
    """Of the orchestrator; None: the newest at each start."""
    cron: str = ""
    """Five fields, or six with seconds first; empty: `every` counts."""
    timezone: str = "UTC"
    every: int = 0
    overlap: Overlap = "skip"
    """What becomes of a due time while an instance still runs."""
    catch_up: CatchUp = "last"
    """What becomes of due times that are over when the schedule sees them."""
    jitter: int = 0
    """Each start is delayed by up to that, by an amount of its own."""
    start: int | None = None
    end: int | None = None
    """No due time is earlier, or later."""

    def check(self) -> None:
        """Raise `InputInvalid` if it makes no sense."""
        if bool(self.cron) == bool(self.every):
            raise InputInvalid("a schedule needs either cron or every")
        if not self.orchestrator:
            raise InputInvalid("a schedule needs the name of an orchestrator")
        if self.every < 0 or self.jitter < 0:
            raise InputInvalid("every and jitter must not be negative")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InputInvalid("a schedule must not end before it starts")
        if self.cron:
            zone_of(self.timezone)
            try:
                CronSim(self.cron, _EPOCH)
            except CronSimError as error:
                raise InputInvalid(f"not a cron expression: {self.cron!r}: {error}") from None


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name. Raises `InputInvalid`."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputInvalid(f"no time zone {name!r}: use a name such as Europe/Berlin") from None


def next_due(schedule: Schedule, anchor: int, after: int) -> int | None:
    """Return the first due time later than `after`, if there is one.

    Args:
        schedule: what is due.
        anchor: from when an interval counts, unless the schedule has a `start`.
        after: this time itself is not due.
    """
    first = schedule.start
    after = after if first is None else max(after, first - 1)
    if schedule.cron:
        due = _cron(schedule, after, reverse=False)
    else:
        origin = anchor + schedule.every if first is None else first
        steps = max(0, (after - origin) // schedule.every + 1)
        due = origin + steps * schedule.every
    if due is None or (schedule.end is not None and due > schedule.end):
        return None
    return due


def latest_due(schedule: Schedule, anchor: int, until: int) -> int | None:
    """Return the last due time up to `until`, if there is one."""
    until = until if schedule.end is None else min(until, schedule.end)
    if schedule.cron:
        due = _cron(schedule, until + 1, reverse=True)
    else:
        origin = anchor + schedule.every if schedule.start is None else schedule.start
        due = origin + (until - origin) // schedule.every * schedule.every
        due = due if due >= origin else None
    if due is None or (schedule.start is not None and due < schedule.start):
        return None
    return due


def _cron(schedule: Schedule, micros: int, *, reverse: bool) -> int | None:
    # To the second: up for looking back, so that what is due in this very second is seen.
    seconds = -(-micros // SECOND) if reverse else micros // SECOND
    local = datetime.fromtimestamp(seconds, zone_of(schedule.timezone))
    try:
        found = next(CronSim(schedule.cron, local, reverse=reverse), None)
    except OverflowError:
        found = None
    return None if found is None else (found - _EPOCH) // _MICROSECOND
