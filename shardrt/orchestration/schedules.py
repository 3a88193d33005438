"""Recurring starts: the built-in orchestrator behind `client.schedule`.

A schedule is an instance like any other, eternal by continue-as-new: one generation per start.
Each due time is seen once, because the next generation begins behind it, and the instance that
it starts has an id made of it; so no crash can start two or none.

What falls due while an instance runs is up to `overlap`; what is over when the schedule wakes,
because no host ran, is up to `catch_up`.
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from shardrt.errors import SubOrchestrationFailed
from shardrt.orchestration.binding import Binding
from shardrt.orchestration.calendar import SECOND, Schedule, latest_due, next_due
from shardrt.orchestration.context import OrchestrationContext
from shardrt.orchestration.definitions import OrchestratorDefinition

SCHEDULE = "shardrt.schedule"
PREFIX = "schedule:"
CONTROL = SCHEDULE
"""The event by which a schedule is steered."""
GRACE = 60 * SECOND
"""A start that is later than this has been missed: see `Schedule.catch_up`."""
COUNT_MAX = 1000
"""So many skipped due times are counted at a time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Control(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client wants of a schedule."""

    op: Literal["pause", "resume", "trigger", "update"]
    schedule: Schedule | None = None
    """The new one, of an update."""


class Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The input of a generation: the schedule, and how far it is."""

    schedule: Schedule
    anchor: int | None = None
    """When it began: from then on intervals count."""
    cursor: int = 0
    """Due times up to here are settled."""
    paused: bool = False
    queued_until: int = 0
    """Due times up to here came while an instance ran, and are to be started all the same."""
    busy_from: int = 0
    busy_until: int = 0
    """Due times in between came while an instance ran, and are skipped."""
    started: int = 0
    skipped: int = 0
    triggered: int = 0
    last_due: int | None = None
    last_instance_id: str | None = None
    last_failure: str | None = None


async def run_schedule(ctx: OrchestrationContext, progress: Progress) -> None:
    """Start instances when they are due, for ever."""
    await _Generation(ctx, progress).run()


class _Generation:
    def __init__(self, ctx: OrchestrationContext, progress: Progress) -> None:
        self.ctx = ctx
        self.progress = progress
        self.control = self._listen()

    @property
    def now(self) -> int:
        return (self.ctx.current_utc_datetime - _EPOCH) // timedelta(microseconds=1)

    def _listen(self) -> asyncio.Future[Control]:
        return self.ctx.wait_for_event(CONTROL, Control)

    async def run(self) -> None:
        """Until one instance was started, and what it needs is done."""
        progress = self.progress
        if progress.anchor is None:
            progress.anchor = progress.cursor = self.now
        while True:
            due = self._next()
            self._show(None if progress.paused else due)
            if due is None and not progress.paused:
                break  # it has ended
            if not await self._reach(due):
                continue
            chosen = self._choose()
            if chosen is not None:
                await self._start(chosen)
                self._go_on()
                return

    # -- due times -------------------------------------------------------------------------------

    def _next(self, after: int | None = None) -> int | None:
        anchor = self.progress.anchor or 0
        after = self.progress.cursor if after is None else after
        return next_due(self.progress.schedule, anchor, after)

    def _latest(self, until: int) -> int | None:
        return latest_due(self.progress.schedule, self.progress.anchor or 0, until)

    def _delayed(self, due: int) -> int:
        """Return when the start is to be, with its jitter."""
        jitter = self.progress.schedule.jitter
        if not jitter:
            return due
        digest = hashlib.sha256(f"{self.ctx.instance_id}:{due}".encode()).digest()
        return due + int.from_bytes(digest[:8], "big") % jitter

    async def _reach(self, due: int | None) -> bool:
        """Wait for a due time; return False if something was asked for meanwhile."""
        timer = None
        if due is not None and not self.progress.paused:
            if self._delayed(due) <= self.now and not self.control.done():
                return True
            timer = self.ctx.create_timer(_datetime(self._delayed(due)))
        await _any(timer, self.control)
        if timer is not None:
            timer.cancel()
        if self.control.done():
            self._obey()
            return False
        return True

    def _choose(self) -> int | None:
        """Return which due time to start now, if any, and settle those that are not."""
        progress, now = self.progress, self.now
        due = self._next()
        assert due is not None, "it was reached"
        if due <= progress.queued_until:
            return due
        if progress.busy_from < due <= progress.busy_until:
            self._skip_until(progress.busy_until)
            return None
        if now - self._delayed(due) <= GRACE or progress.schedule.catch_up == "all":
            return due
        latest = self._latest(now) or due
        if progress.schedule.catch_up == "none" and now - latest > GRACE:
            self._skip_until(latest)
            return None
        self._skip_until(latest - 1)
        return latest

    def _skip_until(self, until: int) -> None:
        progress = self.progress
        for _ in range(COUNT_MAX):
            due = self._next()
            if due is None or due > until:
                break
            progress.cursor = due
            progress.skipped += 1
        progress.cursor = max(progress.cursor, until)

    # -- instances -------------------------------------------------------------------------------

    async def _start(self, due: int) -> None:
        progress = self.progress
        started_at = self.now
        progress.cursor = progress.last_due = due
        instance_id = f"{self.ctx.instance_id.removeprefix(PREFIX)}:{_stamp(due)}"
        child = self._call(instance_id)
        overlap = progress.schedule.overlap
        if overlap == "allow":
            return
        self._show(self._next(), running=instance_id)
        await self._accompany(child, replaceable=overlap == "replace")
        if overlap == "queue":
            progress.queued_until = self.now
        elif overlap == "skip":
            self._note_busy(started_at)

    def _call(self, instance_id: str) -> asyncio.Future[Any]:
        schedule = self.progress.schedule
        self.progress.started += 1
        self.progress.last_instance_id = instance_id
        return self.ctx.call_sub_orchestrator(
            schedule.orchestrator,
            schedule.input,
            instance_id=instance_id,
            version=schedule.version,
        )

    async def _accompany(self, child: asyncio.Future[Any], *, replaceable: bool) -> None:
        """Wait for an instance to end, or for the next one to take its place."""
        while not child.done():
            timer = None
            following = self._next() if replaceable and not self.progress.paused else None
            if following is not None:
                timer = self.ctx.create_timer(_datetime(self._delayed(following)))
            await _any(child, timer, self.control)
            if self.control.done():
                self._obey()
            if timer is None:
                continue
            if timer.done() and not child.done():
                child.cancel()
                return
            timer.cancel()
        self.progress.last_failure = _failure_of(child)

    def _note_busy(self, started_at: int) -> None:
        progress = self.progress
        if progress.schedule.catch_up != "all":
            self._skip_until(self.now)
            return
        # Those that were missed before it started are still to be started one by one.
        if (self._next() or 0) > progress.busy_until:
            progress.busy_from = started_at
        progress.busy_until = self.now

    # -- steering --------------------------------------------------------------------------------

    def _obey(self) -> None:
        try:
            control = self.control.result()
        except Exception as error:  # noqa: BLE001 - nonsense must not end the schedule
            self.ctx.logger.warning("schedule is told nonsense: %s", error)
        else:
            self._obey_control(control)
        self.control = self._listen()

    def _obey_control(self, control: Control) -> None:
        progress = self.progress
        if control.op == "pause":
            progress.paused = True
        elif control.op == "resume":
            if progress.paused:
                progress.paused = False
                progress.cursor = max(progress.cursor, self.now)
        elif control.op == "trigger":
            progress.triggered += 1
            name = self.ctx.instance_id.removeprefix(PREFIX)
            _ = self._call(f"{name}:{_stamp(self.now)}:{progress.triggered}")
        elif control.schedule is not None:
            progress.schedule = control.schedule
            progress.anchor = self.now
            progress.cursor = max(progress.cursor, self.now)

    def _go_on(self) -> None:
        if self.control.done():
            self._obey()
        self.control.cancel()  # else it would take an event that the next one is to have
        self.ctx.continue_as_new(self.progress)

    def _show(self, due: int | None, running: str | None = None) -> None:
        progress = self.progress
        self.ctx.set_custom_status(
            {
                "paused": progress.paused,
                "nextDue": None if due is None else _iso(due),
                "lastDue": None if progress.last_due is None else _iso(progress.last_due),
                "lastInstanceId": progress.last_instance_id,
                "running": running,
                "started": progress.started,
                "skipped": progress.skipped,
                "lastFailure": progress.last_failure,
                "schedule": progress.schedule,
            }
        )


async def _any(*futures: asyncio.Future[Any] | None) -> None:
    awaited = [each for each in futures if each is not None]
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


def _failure_of(child: asyncio.Future[Any]) -> str | None:
    error = child.exception()
    if isinstance(error, SubOrchestrationFailed):
        return f"{error.error_type}: {error.message}"
    return None if error is None else str(error)


def _datetime(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _iso(micros: int) -> str:
    return _datetime(micros).isoformat().replace("+00:00", "Z")


def _stamp(micros: int) -> str:
    fraction = micros % SECOND
    return f"{_datetime(micros):%Y%m%dT%H%M%S}" + (f".{fraction:06}" if fraction else "") + "Z"


BUILT_IN: dict[str, dict[str | None, OrchestratorDefinition]] = {
    SCHEDULE: {
        None: OrchestratorDefinition(
            name=SCHEDULE,
            version=None,
            fn=run_schedule,
            binding=Binding(
                run_schedule, OrchestrationContext, f"orchestrator {SCHEDULE!r}", globals()
            ),
        )
    }
}
"""Orchestrators that every app has, by name and version."""
