"""The part of the client that concerns schedules: recurring starts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.client.starting import name_of
from shardrt.client.views import to_micros
from shardrt.core.history import FINAL, Status
from shardrt.errors import InputInvalid, InstanceExists, InstanceNotFound
from shardrt.orchestration.calendar import CatchUp, Overlap, Schedule
from shardrt.orchestration.schedules import CONTROL, PREFIX, SCHEDULE, Control, Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shardrt.client.starting import Orchestrator
    from shardrt.client.views import OrchestrationStatus

_OPEN = tuple(each for each in Status if each not in FINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatus:
    """A schedule, and how far it is. Times are aware, in UTC."""

    schedule_id: str
    orchestrator: str
    cron: str | None
    timezone: str
    every: timedelta | None
    overlap: Overlap
    catch_up: CatchUp
    paused: bool
    ended: bool
    """Whether nothing is due any more."""
    next_due: datetime | None
    """None also while it is paused."""
    last_due: datetime | None
    last_instance_id: str | None
    running: str | None
    """The instance that it waits for, because of how it overlaps."""
    started: int
    skipped: int
    last_failure: str | None
    reason: str
    """Why it cannot go on, if it cannot."""


def instance_id_of(schedule_id: str) -> str:
    """Return the id of the instance behind a schedule. Raises `InputInvalid`."""
    if not schedule_id:
        raise InputInvalid("a schedule needs an id")
    return PREFIX + schedule_id


def schedule_status_of(status: OrchestrationStatus) -> ScheduleStatus:
    """Return the instance behind a schedule as users see it."""
    shown: dict[str, Any] = status.custom_status or {}
    given: Any = shown.get("schedule") or status.input["schedule"]
    schedule = msgspec.convert(given, Schedule)
    return ScheduleStatus(
        schedule_id=status.instance_id.removeprefix(PREFIX),
        orchestrator=schedule.orchestrator,
        cron=schedule.cron or None,
        timezone=schedule.timezone,
        every=timedelta(microseconds=schedule.every) if schedule.every else None,
        overlap=schedule.overlap,
        catch_up=schedule.catch_up,
        paused=bool(shown.get("paused")),
        ended=status.is_final,
        next_due=None if status.is_final else _time(shown.get("nextDue")),
        last_due=_time(shown.get("lastDue")),
        last_instance_id=shown.get("lastInstanceId"),
        running=shown.get("running"),
        started=int(shown.get("started", 0)),
        skipped=int(shown.get("skipped", 0)),
        last_failure=shown.get("lastFailure"),
        reason=status.reason,
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def schedule_of(  # noqa: PLR0913 - one per property
    orchestrator: Orchestrator,
    input: Any = None,  # noqa: A002 - as the public interface calls it
    *,
    cron: str | None = None,
    timezone: str = "UTC",
    every: timedelta | float | None = None,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "last",
    jitter: timedelta | float = 0,
    start: datetime | None = None,
    end: datetime | None = None,
    version: str | None = None,
) -> Schedule:
    """Return a schedule that makes sense. Raises `InputInvalid`."""
    given = {
        "orchestrator": name_of(orchestrator),
        "input": input,
        "version": version,
        "cron": cron or "",
        "timezone": timezone,
        "every": _duration(every),
        "overlap": overlap,
        "catch_up": catch_up,
        "jitter": _duration(jitter),
        "start": None if start is None else to_micros(start),
        "end": None if end is None else to_micros(end),
    }
    try:
        schedule = msgspec.convert(given, Schedule)
    except msgspec.ValidationError as error:
        raise InputInvalid(str(error)) from None
    schedule.check()
    return schedule


def _duration(value: timedelta | float | None) -> int:
    if value is None:
        return 0
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return round(value * 1_000_000)


class ScheduleClient:
    """See `Client`."""

    start: Callable[..., Any]
    list: Callable[..., Any]
    get: Callable[..., Any]
    raise_event: Callable[..., Any]
    terminate: Callable[..., Any]
    purge: Callable[..., Any]

    async def schedule(  # noqa: PLR0913 - one per property
        self,
        schedule_id: str,
        orchestrator: Orchestrator,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        every: timedelta | float | None = None,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "last",
        jitter: timedelta | float = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        version: str | None = None,
        replace: bool = False,
    ) -> None:
        """Start an orchestration again and again; when this returns the schedule is durable.

        The instance for a due time is called ``<schedule id>:<due time, such as
        20260331T040000Z>``; there is exactly one for each.

        Args:
            schedule_id: by which it is paused, resumed, triggered and deleted.
            orchestrator: the registered function, or its name.
            input: of each instance.
            cron: five fields (or six, with seconds first) in `timezone`.
            timezone: IANA name. A time that a clock change skips is due right after it, one
                that comes twice is due once.
            every: instead of `cron`: an interval, in seconds or as timedelta, counted from
                `start`, else from now.
            overlap: what becomes of a due time while the instance before still runs: ``skip``
                it, ``queue`` it until then, ``allow`` both, or ``replace`` (terminate) the old.
            catch_up: what becomes of due times that no host was there for, or that are more
                than a minute late for another reason: start ``none``, the ``last`` or
                ``all`` of them.
            jitter: each start is late by up to that, by an amount of its own.
            start: no due time is earlier. Naive times are UTC.
            end: no due time is later; the schedule then completes.
            version: of the orchestrator; default: the newest at each start.
            replace: an open schedule of this id by this one; what runs goes on.

        Raises:
            InputInvalid: the schedule makes no sense.
            InstanceExists: there is an open schedule of this id, and `replace` is not set.
        """
        schedule = schedule_of(
            orchestrator,
            input,
            cron=cron,
            timezone=timezone,
            every=every,
            overlap=overlap,
            catch_up=catch_up,
            jitter=jitter,
            start=start,
            end=end,
            version=version,
        )
        instance_id = instance_id_of(schedule_id)
        try:
            await self.start(
                SCHEDULE,
                Progress(schedule=schedule),
                instance_id=instance_id,
                on_conflict="restart",
            )
        except InstanceExists:
            if not replace:
                raise InstanceExists(f"schedule {schedule_id!r} exists already") from None
            await self.raise_event(instance_id, CONTROL, Control("update", schedule))

    async def schedules(self, *, ended: bool = False) -> AsyncIterator[ScheduleStatus]:
        """Iterate over schedules, oldest first; also those that have ended if `ended`.

        Like `list`, this lags behind by a checkpoint interval (a second).
        """
        status = None if ended else _OPEN
        async for each in self.list(name=SCHEDULE, id_prefix=PREFIX, status=status):
            yield schedule_status_of(each)

    async def get_schedule(self, schedule_id: str) -> ScheduleStatus | None:
        """Return how a schedule stands; None: there is none."""
        status = await self.get(instance_id_of(schedule_id))
        return None if status is None else schedule_status_of(status)

    async def pause_schedule(self, schedule_id: str) -> None:
        """Start nothing more until it is resumed; what falls due meanwhile is not made up for."""
        await self.raise_event(instance_id_of(schedule_id), CONTROL, Control("pause"))

    async def resume_schedule(self, schedule_id: str) -> None:
        """Go on after a pause."""
        await self.raise_event(instance_id_of(schedule_id), CONTROL, Control("resume"))

    async def trigger_schedule(self, schedule_id: str) -> None:
        """Start an instance now, whatever runs and also while it is paused."""
        await self.raise_event(instance_id_of(schedule_id), CONTROL, Control("trigger"))

    async def delete_schedule(self, schedule_id: str) -> None:
        """End a schedule and forget it; what runs goes on.

        Raises:
            InstanceNotFound: there is no such schedule.
        """
        instance_id = instance_id_of(schedule_id)
        status = await self.get(instance_id)
        if status is None:
            raise InstanceNotFound(f"no schedule {schedule_id!r}")
        if not status.is_final:
            await self.terminate(instance_id, "deleted", recursive=False)
        await self.purge(instance_id)
