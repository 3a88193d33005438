"""Runs activities: `async def` on the shard's loop, plain functions in threads.

An attempt starts only after the record that schedules it is durable (the caller sees to that),
and its outcome goes back to the partition that asked. Whether anybody still wants it is decided
there, by the ids of the attempt. Everything that an activity raises is data: a `Failure`.

Concurrency is bounded for the whole shard and per activity; what is over the bound waits in
line here. A crash loses the line, not the work: the partition's state remembers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shardrt.core.history import Failure
from shardrt.errors import ActivityNotRegistered, PayloadTooLarge
from shardrt.orchestration import payload
from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.failure import failure_of

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.config import Settings
    from shardrt.core.effects import CancelActivity, RunActivity
    from shardrt.orchestration.app import App
    from shardrt.orchestration.definitions import ActivityDefinition

logger = logging.getLogger(__name__)


class Asker(Protocol):
    """Who wants the outcome: one partition under one epoch."""

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        """Take the outcome of an attempt."""
        ...


class Attempt(NamedTuple):
    """One run of an activity, asked for by one partition."""

    asker: Asker
    run: RunActivity


Key = tuple[str, str, int]


class _Control:
    """What a running activity can see of the pool."""

    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def heartbeat(self, details: Raw) -> None:
        """Take a sign of life."""

    def is_cancelled(self) -> bool:
        return self.cancelled


class _Running:
    """A started attempt."""

    __slots__ = ("attempt", "control", "task")

    def __init__(self, attempt: Attempt, control: _Control) -> None:
        self.attempt = attempt
        self.control = control
        self.task: asyncio.Task[None] | None = None


class ActivityPool:
    """All activities of a shard."""

    def __init__(self, app: App, settings: Settings, *, host_id: str, shard: int) -> None:
        self._app = app
        self._concurrency_max = settings.shard.activity_concurrency_max
        self._threads_max = settings.shard.activity_threads_max
        self._payload_bytes_max = settings.limits.payload_bytes_max
        self._host_id = host_id
        self._shard = shard
        self._threads: ThreadPoolExecutor | None = None
        self._running: dict[Key, _Running] = {}
        self._detached: set[asyncio.Task[None]] = set()
        """Cancelled attempts that have not ended yet."""
        self._line: deque[Attempt] = deque()
        self._names: dict[str, int] = {}
        """Running attempts of activities that have a bound of their own."""

    def __len__(self) -> int:
        return len(self._running) + len(self._line)

    def names(self) -> list[str]:
        """Return the names of what is running."""
        return list(dict.fromkeys(each.attempt.run.name for each in self._running.values()))

    def start(self, asker: Asker, run: RunActivity) -> None:
        """Run an attempt, now or when there is room."""
        attempt = Attempt(asker, run)
        if self._line or not self._start(attempt):
            self._line.append(attempt)

    def cancel(self, effect: CancelActivity) -> None:
        """Stop an attempt as far as it can be stopped; its outcome is not reported."""
        key = (effect.instance_id, effect.execution_id, effect.task_id)
        running = self._running.get(key)
        if running is not None:
            self._abandon(key, running)
        else:
            self._line = deque(each for each in self._line if _key(each.run) != key)

    def cancel_all(self, asker: Asker) -> None:
        """Stop everything that a partition asked for."""
        self._line = deque(each for each in self._line if each.asker is not asker)
        for key, running in list(self._running.items()):
            if running.attempt.asker is asker:
                self._abandon(key, running)

    async def finish(self, asker: Asker, grace_s: float) -> None:
        """Forget what a partition has in line, and let what runs for it end within this time."""
        self._line = deque(each for each in self._line if each.asker is not asker)
        tasks = [
            each.task
            for each in self._running.values()
            if each.task is not None and each.attempt.asker is asker
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    async def close(self) -> None:
        """Cancel everything and wait for it, but not for threads."""
        self._line.clear()
        for key, running in list(self._running.items()):
            self._abandon(key, running)
        if self._detached:
            await asyncio.wait(list(self._detached), timeout=1.0)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- inside --------------------------------------------------------------------------------

    def _start(self, attempt: Attempt) -> bool:
        if len(self._running) >= self._concurrency_max:
            return False
        run = attempt.run
        try:
            activity = self._app.find_activity(run.name)
        except ActivityNotRegistered as error:
            attempt.asker.activity_ended(run, failure_of(error))
            return True
        bound = activity.max_concurrency
        if bound is not None:
            running = self._names.get(run.name, 0)
            if running >= bound:
                return False
            self._names[run.name] = running + 1
        self._launch(attempt, activity)
        return True

    def _launch(self, attempt: Attempt, activity: ActivityDefinition) -> None:
        running = _Running(attempt, _Control())
        self._running[_key(attempt.run)] = running
        body = self._in_loop if activity.executor == "async" else self._in_thread
        running.task = asyncio.get_running_loop().create_task(body(running, activity))

    async def _in_loop(self, running: _Running, activity: ActivityDefinition) -> None:
        run = running.attempt.run
        outcome: Raw | Failure
        try:
            call = activity.binding.call(self._context(run, running.control), run.input)
            if run.timeout is None:
                value = await call
            else:
                async with asyncio.timeout(run.timeout / 1e6):
                    value = await call
            outcome = self._encode(value, run)
        except asyncio.CancelledError:
            if running.control.cancelled:
                self._ended(running, activity, None)
                raise
            outcome = Failure(type="CancelledError", message="the activity cancelled itself")
        except Exception as error:  # noqa: BLE001 - what users raise is data
            outcome = failure_of(error)
        self._ended(running, activity, outcome)

    async def _in_thread(self, running: _Running, activity: ActivityDefinition) -> None:
        run = running.attempt.run
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._threads_max, "shardrt-activity")

        def body() -> Raw | Failure:
            try:
                value = activity.binding.call(self._context(run, running.control), run.input)
                return self._encode(value, run)
            except Exception as error:  # noqa: BLE001 - what users raise is data
                return failure_of(error)

        thread = asyncio.get_running_loop().run_in_executor(self._threads, body)
        outcome: Raw | Failure | None = None
        try:
            async with asyncio.timeout(None if run.timeout is None else run.timeout / 1e6):
                outcome = await asyncio.shield(thread)
        except TimeoutError:
            # The thread cannot be stopped; it may look at `is_cancelled`. Nobody waits for it.
            running.control.cancelled = True
            seconds = (run.timeout or 0) / 1e6
            outcome = Failure(type="TimeoutError", message=f"did not end within {seconds:g} s")
        finally:
            self._ended(running, activity, outcome)

    def _encode(self, value: object, run: RunActivity) -> Raw:
        what = f"result of activity {run.name!r}"
        encoded = payload.encode(value, what)
        if len(memoryview(encoded)) > self._payload_bytes_max:
            size = len(memoryview(encoded))
            raise PayloadTooLarge(f"{what} has {size} bytes, more than {self._payload_bytes_max}")
        return encoded

    def _context(self, run: RunActivity, control: _Control) -> ActivityContext:
        return ActivityContext(
            instance_id=run.instance_id,
            execution_id=run.execution_id,
            name=run.name,
            task_id=run.task_id,
            attempt=run.attempt,
            host_id=self._host_id,
            shard=self._shard,
            control=control,
        )

    def _abandon(self, key: Key, running: _Running) -> None:
        """Make room at once; what still runs is told to stop and reports to nobody."""
        del self._running[key]
        running.control.cancelled = True
        if running.task is not None:
            self._detached.add(running.task)
            running.task.add_done_callback(self._detached.discard)
            running.task.cancel()

    def _ended(
        self, running: _Running, activity: ActivityDefinition, outcome: Raw | Failure | None
    ) -> None:
        run = running.attempt.run
        if activity.max_concurrency is not None:
            self._names[run.name] -= 1
        key = _key(run)
        if self._running.get(key) is running:
            del self._running[key]
            if outcome is not None:
                running.attempt.asker.activity_ended(run, outcome)
        if self._line:
            self._advance()

    def _advance(self) -> None:
        """Start what waits in line; an activity at its own bound does not hold up others."""
        waiting, self._line = self._line, deque()
        while waiting and len(self._running) < self._concurrency_max:
            attempt = waiting.popleft()
            if not self._start(attempt):
                self._line.append(attempt)
        self._line += waiting


def _key(run: RunActivity) -> Key:
    return run.instance_id, run.execution_id, run.task_id
