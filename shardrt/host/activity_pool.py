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
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shardrt.core.history import Failure
from shardrt.errors import ActivityNotRegistered, PayloadTooLarge
from shardrt.host.bounds import Bounds
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

    __slots__ = ("activity", "attempt", "control", "task")

    def __init__(self, attempt: Attempt, activity: ActivityDefinition) -> None:
        self.attempt = attempt
        self.activity = activity
        self.control = _Control()
        self.task: asyncio.Task[None] | None = None


class ActivityPool:
    """All activities of a shard."""

    def __init__(self, app: App, settings: Settings, *, host_id: str, shard: int) -> None:
        self._app = app
        self._concurrency_max = settings.shard.activity_concurrency_max
        self._threads_max = settings.shard.activity_threads_max
        self._bounds = Bounds(settings.limits)
        self._host_id = host_id
        self._shard = shard
        self._threads: ThreadPoolExecutor | None = None
        self._running: dict[Key, _Running] = {}
        self._detached: set[asyncio.Task[None]] = set()
        """Cancelled attempts that have not ended yet."""
        self._waiting: dict[Key, Attempt] = {}
        """What is in a line. A line may also hold what has been cancelled since."""
        self._line: deque[Attempt] = deque()
        """Waits for room in the shard."""
        self._held: dict[str, deque[Attempt]] = {}
        """Waits until its activity is below its own bound."""
        self._names: dict[str, int] = {}
        """Running attempts of activities that have a bound of their own, cancelled ones
        included until they have ended."""

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    def names(self) -> list[str]:
        """Return the names of what is running."""
        return list(dict.fromkeys(each.attempt.run.name for each in self._running.values()))

    def start(self, asker: Asker, run: RunActivity) -> None:
        """Run an attempt, now or when there is room."""
        attempt = Attempt(asker, run)
        if len(self._running) < self._concurrency_max:
            self._start(attempt)
        else:
            self._wait(self._line, attempt)

    def cancel(self, effect: CancelActivity) -> None:
        """Stop an attempt as far as it can be stopped; its outcome is not reported."""
        key = (effect.instance_id, effect.execution_id, effect.task_id)
        running = self._running.get(key)
        if running is not None:
            self._abandon(key, running)
            self._advance()
        else:
            self._waiting.pop(key, None)

    def cancel_all(self, asker: Asker) -> None:
        """Stop everything that a partition asked for."""
        self._forget_waiting(asker)
        for key, running in list(self._running.items()):
            if running.attempt.asker is asker:
                self._abandon(key, running)
        self._advance()

    async def finish(self, asker: Asker, grace_s: float) -> None:
        """Forget what a partition has in line, and let what runs for it end within this time."""
        self._forget_waiting(asker)
        tasks = [
            each.task
            for each in self._running.values()
            if each.task is not None and each.attempt.asker is asker
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    async def close(self) -> None:
        """Cancel everything and wait for it, but not for threads."""
        self._waiting.clear()
        for key, running in list(self._running.items()):
            self._abandon(key, running)
        if self._detached:
            await asyncio.wait(list(self._detached), timeout=1.0)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- inside --------------------------------------------------------------------------------

    def _wait(self, line: deque[Attempt], attempt: Attempt) -> None:
        self._waiting[_key(attempt.run)] = attempt
        line.append(attempt)

    def _forget_waiting(self, asker: Asker) -> None:
        for key in [key for key, each in self._waiting.items() if each.asker is asker]:
            del self._waiting[key]

    def _start(self, attempt: Attempt) -> None:
        """Start an attempt, as there is room in the shard, or let it wait for its like."""
        run = attempt.run
        try:
            activity = self._app.find_activity(run.name)
        except ActivityNotRegistered as error:
            attempt.asker.activity_ended(run, failure_of(error))
            return
        bound = activity.max_concurrency
        if bound is not None:
            running = self._names.get(run.name, 0)
            if running >= bound:
                self._wait(self._held.setdefault(run.name, deque()), attempt)
                return
            self._names[run.name] = running + 1
        self._launch(attempt, activity)

    def _launch(self, attempt: Attempt, activity: ActivityDefinition) -> None:
        running = _Running(attempt, activity)
        self._running[_key(attempt.run)] = running
        body = self._in_loop if activity.executor == "async" else self._in_thread
        running.task = asyncio.get_running_loop().create_task(body(running))

    async def _in_loop(self, running: _Running) -> None:
        run = running.attempt.run
        outcome: Raw | Failure
        try:
            call = running.activity.binding.call(self._context(run, running.control), run.input)
            if run.timeout is None:
                value = await call
            else:
                async with asyncio.timeout(run.timeout / 1e6):
                    value = await call
            outcome = self._encode(value, run)
        except asyncio.CancelledError:
            if running.control.cancelled:
                raise
            outcome = Failure(type="CancelledError", message="the activity cancelled itself")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - what users raise is data, also SystemExit
            outcome = failure_of(error)
        self._ended(running, outcome)

    async def _in_thread(self, running: _Running) -> None:
        run, activity = running.attempt.run, running.activity
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._threads_max, "shardrt-activity")

        def body() -> Raw | Failure:
            try:
                value = activity.binding.call(self._context(run, running.control), run.input)
                return self._encode(value, run)
            except BaseException as error:  # noqa: BLE001 - what users raise is data
                return failure_of(error)

        thread = asyncio.get_running_loop().run_in_executor(self._threads, body)
        outcome: Raw | Failure
        try:
            async with asyncio.timeout(None if run.timeout is None else run.timeout / 1e6):
                outcome = await asyncio.shield(thread)
        except TimeoutError:
            # The thread cannot be stopped; it may look at `is_cancelled`. Nobody waits for it.
            running.control.cancelled = True
            seconds = (run.timeout or 0) / 1e6
            outcome = Failure(type="TimeoutError", message=f"did not end within {seconds:g} s")
        self._ended(running, outcome)

    def _encode(self, value: object, run: RunActivity) -> Raw:
        what = f"result of activity {run.name!r}"
        encoded = payload.encode(value, what)
        problem = self._bounds.payload(encoded, what)
        if problem is not None:
            raise PayloadTooLarge(problem)
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
            # NB: a task that is cancelled before it ran at all never runs.
            self._detached.add(running.task)
            running.task.add_done_callback(partial(self._left, running))
            running.task.cancel()

    def _left(self, running: _Running, task: asyncio.Task[None]) -> None:
        self._detached.discard(task)
        self._make_room(running)

    def _ended(self, running: _Running, outcome: Raw | Failure) -> None:
        run = running.attempt.run
        key = _key(run)
        if self._running.get(key) is running:
            del self._running[key]
            running.attempt.asker.activity_ended(run, outcome)
            self._make_room(running)

    def _make_room(self, running: _Running) -> None:
        """Let the next one of its kind take its place, or else the next in line."""
        if running.activity.max_concurrency is not None:
            name = running.attempt.run.name
            self._names[name] -= 1
            held = self._held.get(name)
            while held:
                attempt = held.popleft()
                if self._waiting.get(_key(attempt.run)) is attempt:
                    self._line.appendleft(attempt)
                    break
        if self._line:
            self._advance()

    def _advance(self) -> None:
        while self._line and len(self._running) < self._concurrency_max:
            attempt = self._line.popleft()
            key = _key(attempt.run)
            if self._waiting.get(key) is attempt:
                del self._waiting[key]
                self._start(attempt)


def _key(run: RunActivity) -> Key:
    return run.instance_id, run.execution_id, run.task_id
