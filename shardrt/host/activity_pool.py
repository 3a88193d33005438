"""Runs activities: `async def` on the shard's loop, plain functions in threads or processes.

An attempt starts only after the record that schedules it is durable (the caller sees to that),
and its outcome goes back to the partition that asked. Whether anybody still wants it is decided
there, by the ids of the attempt. Everything that an activity raises is data: a `Failure`.

Concurrency is bounded for the whole shard, per executor and per activity; what is over a bound
waits in line (`gates`). A crash loses the line, not the work: the partition's state remembers it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from shardrt.core.history import NULL, Failure
from shardrt.errors import ActivityNotRegistered, ConfigInvalid, EpochFenced
from shardrt.host.around import FailedElsewhere, outcome_of, wrapped
from shardrt.host.attempts import Attempt, Control, Kind, Running, key_of
from shardrt.host.black_box import BlackBox, Stretches, note_of
from shardrt.host.bounds import Bounds
from shardrt.host.gates import Gate, Lines
from shardrt.host.payloads import Payloads
from shardrt.host.runners import Runners
from shardrt.host.transactional import commit_once
from shardrt.host.worker_pool import AppSource, WorkerPool
from shardrt.links.worker_link import Perform
from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.failure import failure_of
from shardrt.orchestration.middleware import ExecutionKind
from shardrt.orchestration.payload import ANY
from shardrt.store.transactions import OutcomeKey
from shardrt.tracing.joining import current_trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from msgspec import Raw

    from shardrt.config import Settings
    from shardrt.core.effects import CancelActivity, RunActivity
    from shardrt.host.attempts import Asker, Key, Owner
    from shardrt.orchestration.app import App
    from shardrt.store.transactions import Transactions

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_S_MAX = 1.0
"""How long cancelled attempts get to clean up when the shard ends."""


class ActivityPool:
    """All activities of a shard."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        host_id: str,
        shard: int,
        source: AppSource | None = None,
        box: BlackBox | None = None,
    ) -> None:
        self._box = box or BlackBox()
        self.suspects: set[Key] = set()
        """Attempts that may have ended a shard process: those in threads run one at a time."""
        self._isolation = Gate(1)
        self._app = app
        self._concurrency_max = settings.shard.activity_concurrency_max
        self._payloads = Payloads(app, Bounds(settings.limits))
        self._host_id = host_id
        self._shard = shard
        self._kinds: dict[str, Kind] = {}
        """By name, once it has been asked for."""
        self._thread_gate = Gate(settings.shard.activity_threads_max)
        self._threads: ThreadPoolExecutor | None = None
        self._process_gate = Gate(settings.shard.activity_processes_max)
        self.workers = WorkerPool(source or AppSource(""), settings)
        self._transaction_gate = Gate(settings.shard.activity_transactions_max)
        self.transactions: Transactions | None = None
        """Those of the store, if it has any; to be set before the first attempt starts."""
        self._running: dict[Key, Running] = {}
        self._detached: dict[asyncio.Task[None], Running] = {}
        """Given up, but their code has not ended yet. They still hold places behind gates."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that everything here runs in, once it is known."""
        self._lines = Lines()
        self._runners = Runners()
        self.attempted: Callable[[str, Failure | None, float], None] = lambda *_: None
        """Told of each attempt that ended: of which activity, how, and after how many seconds."""
        self.around: Callable[[Attempt], Context] | None = None
        """Says in which context an attempt of a traced instance that starts now is to run."""
        self.outside: Callable[[], Context] = copy_context
        """Likewise, of one that is not; asked only if some are."""

    def __len__(self) -> int:
        return len(self._running) + len(self._lines.waiting)

    @property
    def about_to_begin(self) -> int:
        """How many attempts begin in the next turn of the loop, most of them to end in it."""
        return len(self._runners)

    @property
    def lingering(self) -> int:
        """How many attempts were given up but still run."""
        return len(self._detached)

    def names(self) -> list[str]:
        """Return the names of what is running."""
        running = [*self._running.values(), *self._detached.values()]
        return list(dict.fromkeys(each.attempt.run.name for each in running))

    def start(self, asker: Asker, run: RunActivity) -> None:
        """Run an attempt, now or when there is room."""
        self._start(Attempt(asker, run))

    def cancel(self, effect: CancelActivity) -> None:
        """Stop an attempt as far as it can be stopped; its outcome is not reported."""
        key = (effect.instance_id, effect.execution_id, effect.task_id)
        running = self._running.get(key)
        if running is not None:
            self._abandon(running)
            self._advance()
        else:
            self._lines.forget(key)

    def cancel_all(self, asker: Asker) -> None:
        """Stop everything that a partition asked for."""
        self._lines.forget_all(asker)
        for running in list(self._running.values()):
            if running.attempt.asker is asker:
                self._abandon(running)
        self._advance()

    async def finish(self, asker: Asker, grace_s: float) -> None:
        """Forget what a partition has in line, and let what runs for it end within this time."""
        self._lines.forget_all(asker)
        self._runners.part()
        tasks = [
            each.task
            for each in self._running.values()
            if each.task is not None and each.attempt.asker is asker
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    async def close(self) -> None:
        """Cancel everything and wait for it, but not for threads."""
        self._lines.clear()
        for running in list(self._running.values()):
            self._abandon(running)
        for task, running in self._detached.items():
            if running.kind.activity.executor == "thread":
                task.cancel()
        leaving = set(self._detached)
        if self._runners.unbegun is not None:
            leaving.add(self._runners.unbegun)
        if leaving:
            await asyncio.wait(leaving, timeout=CLOSE_S_MAX)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        await self.workers.close()

    # -- who may start -------------------------------------------------------------------------

    def _start(self, attempt: Attempt) -> None:
        """Start an attempt, or let it wait for room in the shard, or at a gate."""
        if len(self._running) >= self._concurrency_max:
            self._lines.wait(attempt)
            return
        kind = self._kinds.get(attempt.run.name)
        if kind is None:
            try:
                kind = self._find_kind(attempt.run.name)
            except ActivityNotRegistered as error:
                attempt.asker.activity_ended(attempt.run, failure_of(error))
                return
        if self.suspects and key_of(attempt.run) in self.suspects:
            kind = self._isolated(kind)
        if kind.gates and not self._passes(attempt, kind.gates):
            return
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()  # which takes a system call
        control = Control(self._payloads, loop.time, attempt.run.heartbeat)
        running = Running(attempt, key_of(attempt.run), kind, control, loop.time())
        self._running[running.key] = running
        context = None
        if self.around is not None:
            context = self.around(attempt) if attempt.run.trace else self.outside()
        elif kind.may_share:
            self._runners.start(running, loop)
            return
        # By the loop, for that of tests keeps count; named, or it would first make a name up.
        running.task = loop.create_task(kind.body(running), name=attempt.run.name, context=context)

    def _passes(self, attempt: Attempt, gates: tuple[Gate, ...]) -> bool:
        """Take a place behind each gate, or let the attempt wait at one where there is none."""
        for gate in gates:
            if gate.used >= gate.places:
                self._lines.wait(attempt, gate)
                return False
        for gate in gates:
            gate.used += 1
        return True

    def _isolated(self, kind: Kind) -> Kind:
        if kind.activity.executor != "thread" or kind.activity.transactional:
            return kind  # if it ends the process, it is known that it was this one
        return dataclasses.replace(kind, gates=(*kind.gates, self._isolation))

    def _find_kind(self, name: str) -> Kind:
        activity = self._app.find_activity(name)
        around = self._app.executing(ExecutionKind.ACTIVITY)
        gates = () if activity.max_concurrency is None else (Gate(activity.max_concurrency),)
        call: Callable[[Any, Raw], Any] = activity.binding.call
        takes_context = activity.binding.takes_context
        body = self._in_loop
        if activity.executor == "thread":
            gates, body = (*gates, self._thread_gate), self._in_thread
        elif activity.executor == "process":
            gates, body = (*gates, self._process_gate), self._in_process
        elif activity.transactional:
            gates = (*gates, self._transaction_gate)
        if around and activity.executor == "async":
            call, takes_context = wrapped(around, call), True
        may_share = activity.executor == "async" and not activity.transactional
        kind = Kind(activity, gates, body, call, takes_context, around, may_share)
        self._kinds[name] = kind
        return kind

    def _abandon(self, running: Running) -> None:
        """Make room at once; what still runs is told to stop and reports to nobody."""
        del self._running[running.key]
        running.stop()
        if running.task is None:  # nothing runs, nor will
            self._lines.give_back(running.kind.gates)
            return
        self._detached[running.task] = running
        running.task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        running = self._detached.pop(task)
        self._lines.give_back(running.kind.gates)
        self._advance()

    def _ended(self, running: Running, outcome: Raw | Failure) -> None:
        if self._running.get(running.key) is not running:
            return  # given up before
        del self._running[running.key]
        if running.timer is not None or running.pulse is not None:
            running.disarm()
        if running.kind.gates:
            self._lines.give_back(running.kind.gates)
        failure = None
        if type(outcome) is Failure:
            outcome = failure = _with_heartbeat(outcome, running)
        run = running.attempt.run
        self.attempted(run.name, failure, running.control.time() - running.began_s)
        running.attempt.asker.activity_ended(run, outcome)
        if self._lines.waiting:
            self._advance()

    def _expire(self, running: Running, failure: Failure) -> None:
        """Report a failure of code that may go on for a while; nobody waits for it."""
        run = running.attempt.run
        if self._running.get(running.key) is running:
            self._abandon(running)
            self.attempted(run.name, failure, running.control.time() - running.began_s)
            running.attempt.asker.activity_ended(run, _with_heartbeat(failure, running))
            self._advance()

    def _advance(self) -> None:
        self._lines.let_through(self._has_room, self._start)

    def _has_room(self) -> bool:
        return len(self._running) < self._concurrency_max

    # -- running it ----------------------------------------------------------------------------

    async def _in_loop(self, running: Running) -> None:
        run = running.attempt.run
        outcome: Raw | Failure
        if run.heartbeat_timeout is not None:
            self._watch(running)
        kind = running.kind
        activity = kind.activity
        try:
            context = self._context(running) if kind.takes_context else None
            call: Awaitable[Any]
            if activity.transactional:
                call = self._transact(running)
            else:
                call = kind.call(context, self._payloads.open(run.input))
            if self._box.watches:
                call = Stretches(self._box, note_of(run), call)
            value = await (call if run.timeout is None else _within(run.timeout / 1e6, call))
            outcome = value if activity.transactional else self._payloads.result(value, run.name)
        except asyncio.CancelledError:
            if running.control.cancelled:
                raise
            outcome = Failure(type="CancelledError", message="the activity cancelled itself")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - what users raise is data, also SystemExit
            outcome = failure_of(error)
        self._ended(running, outcome)

    async def _transact(self, running: Running) -> Raw:
        """Run it in a transaction, unless another attempt has committed already."""
        run, kind = running.attempt.run, running.kind
        if self.transactions is None:
            raise ConfigInvalid(f"activity {run.name!r} needs a store with transactions")

        async def work(connection: Any) -> Raw:
            context = self._context(running, connection)
            value = await kind.call(context, self._payloads.open(run.input))
            return self._payloads.result(value, run.name)

        owner = cast("Owner", running.attempt.asker)
        key = OutcomeKey(owner.partition, *key_of(run))
        try:
            return await commit_once(self.transactions, key, owner.epoch, work)
        except EpochFenced:
            owner.discard()  # this attempt as well: that it was fenced is no outcome
            raise

    async def _in_thread(self, running: Running) -> None:
        """Run it in a thread, which cannot be stopped: this task ends when the thread does."""
        run = running.attempt.run
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._thread_gate.places, "shardrt-activity")
        call = running.kind.call

        def body() -> Raw | Failure:
            try:
                value = call(self._context(running), self._payloads.open(run.input))
                return self._payloads.result(value, run.name)
            except BaseException as error:  # noqa: BLE001 - what users raise is data
                return failure_of(error)

        self._limit_time(running)
        if running.kind.around:
            context = self._context(running)
            inner = partial(self._value_by_thread, running, context)
            outcome = await outcome_of(running, context, self._payloads, inner)
        else:
            outcome = await self._by_thread(running, body)
        self._ended(running, outcome)

    async def _value_by_thread(self, running: Running, context: ActivityContext) -> Any:
        """Run it in a thread and return or raise what it does, for middleware to see."""
        call, run = running.kind.call, running.attempt.run

        def body() -> tuple[Any, BaseException | None]:
            try:
                return call(context, self._payloads.open(run.input)), None
            except BaseException as error:  # noqa: BLE001 - it is handed on
                return None, error

        value, error = await self._by_thread(running, body)
        if running.control.cancelled:
            raise asyncio.CancelledError  # nobody waits for what the middleware still does
        if error is not None:
            raise error
        return value

    async def _by_thread(self, running: Running, body: Callable[[], T]) -> T:
        run = running.attempt.run
        slot = self._box.hold(note_of(run, alone=self._isolation in running.kind.gates))
        call = body if self.around is None else partial(copy_context().run, body)
        running.in_thread = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            running.in_thread = False
            self._box.free(slot)

    async def _in_process(self, running: Running) -> None:
        """Run it in a worker process, which is killed if this task is cancelled."""
        if running.kind.around:
            self._limit_time(running)  # also what is around it; anew once a worker has it
            inner = partial(self._value_by_process, running)
            context = self._context(running)
            outcome = await outcome_of(running, context, self._payloads, inner)
        else:
            outcome = await self._by_process(running)
        self._ended(running, outcome)

    async def _value_by_process(self, running: Running) -> Any:
        outcome = await self._by_process(running)
        if isinstance(outcome, Failure):
            raise FailedElsewhere(outcome, f"activity {running.attempt.run.name!r} failed: ")
        return ANY.decode(self._payloads.open(outcome))

    async def _by_process(self, running: Running) -> Raw | Failure:
        run = running.attempt.run
        call = Perform(
            run.name,
            run.input,
            run.instance_id,
            run.execution_id,
            run.task_id,
            run.attempt,
            self._host_id,
            self._shard,
            run.heartbeat,
            current_trace() if self.around is not None else "",
        )
        began = partial(self._limit_time, running)
        return await self.workers.perform(call, running.control.beat, began)

    def _limit_time(self, running: Running) -> None:
        """Give up an attempt that cannot be interrupted once its time is over, from now on."""
        running.disarm()
        if running.attempt.run.heartbeat_timeout is not None:
            self._watch(running)
        timeout = running.attempt.run.timeout
        if timeout is not None:
            seconds = timeout / 1e6
            failure = Failure(type="TimeoutError", message=_too_long(seconds))
            loop = asyncio.get_running_loop()
            running.timer = loop.call_later(seconds, partial(self._expire, running, failure))

    def _watch(self, running: Running) -> None:
        """Give up an attempt once it is silent for too long."""
        running.control.beat_s = asyncio.get_running_loop().time()
        self._feel_pulse(running)

    def _feel_pulse(self, running: Running) -> None:
        loop = asyncio.get_running_loop()
        limit_s = (running.attempt.run.heartbeat_timeout or 0) / 1e6
        due_s = running.control.beat_s + limit_s
        if loop.time() < due_s:
            running.pulse = loop.call_at(due_s, self._feel_pulse, running)
            return
        message = f"no heartbeat for {limit_s:g} s"
        self._expire(running, Failure(type="HeartbeatTimeout", message=message))

    def _context(self, running: Running, connection: Any = None) -> ActivityContext:
        run = running.attempt.run
        return ActivityContext(
            instance_id=run.instance_id,
            execution_id=run.execution_id,
            name=run.name,
            task_id=run.task_id,
            attempt=run.attempt,
            host_id=self._host_id,
            shard=self._shard,
            control=running.control,
            details=self._payloads.open(run.heartbeat),
            connection=connection,
        )


async def _within(limit_s: float, call: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(_too_long(limit_s)) from error
        raise


def _too_long(limit_s: float) -> str:
    return f"did not end within {limit_s:g} s"


def _with_heartbeat(failure: Failure, running: Running) -> Failure:
    """Return the failure with what the next attempt should know."""
    details = running.control.details
    return failure if details is NULL else msgspec.structs.replace(failure, heartbeat=details)
