"""Worker processes of a shard, for activities that keep a processor busy.

A worker runs one attempt at a time, and its process is the means to stop it: an attempt that is
cancelled or takes too long has its worker killed, and a worker that dies by itself takes nothing
with it but its attempt. Workers are started when they are needed and kept for the next attempt.
How many there may be is up to the caller: as many as attempts at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.core.history import Failure
from shardrt.host.interpreter import environment, interpreter
from shardrt.links import worker_link as w
from shardrt.links.control_link import ControlLink, connect_control
from shardrt.orchestration.failure import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from msgspec import Raw

    from shardrt.config import Settings

logger = logging.getLogger(__name__)

MODULE = "shardrt.host.worker"


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where another process finds the app."""

    reference: str
    """``module:attribute``; empty: nowhere."""
    import_paths: Sequence[str] = ()


class WorkerEnded(Exception):
    """A worker process ended in the middle of something."""


class Worker:
    """One worker process, from the shard's side."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        self.ended: asyncio.Future[int] = loop.create_future()
        """Its exit code, negative for a signal."""
        self._process = process
        self._link: ControlLink | None = None
        self._answer: asyncio.Future[Any] = loop.create_future()
        self._on_beat: Callable[[Raw], None] | None = None
        threading.Thread(target=self._reap, args=(loop,), daemon=True).start()

    def adopt(self, link: ControlLink) -> None:
        self._link = link

    async def ask(
        self, message: w.ToWorker, on_beat: Callable[[Raw], None] | None = None
    ) -> w.Prepared | w.Returned | w.Raised:
        """Send a message and return its answer. Raises `WorkerEnded`."""
        assert self._link is not None
        self._on_beat = on_beat
        self._answer = asyncio.get_running_loop().create_future()
        self._link.send(message)
        await asyncio.wait([self._answer, self.ended], return_when=asyncio.FIRST_COMPLETED)
        if not self._answer.done():
            raise WorkerEnded(f"worker process {self.pid} {_how(self.ended.result())}")
        answer: w.Prepared | w.Returned | w.Raised = self._answer.result()
        return answer

    def kill(self) -> None:
        """End the process at once; `ended` follows."""
        if not self.ended.done():
            self._process.kill()
        if self._link is not None:
            self._link.close()

    def on_message(self, message: w.FromWorker) -> None:
        if not isinstance(message, w.Beat):
            if not self._answer.done():
                self._answer.set_result(message)
        elif self._on_beat is not None:
            self._on_beat(message.details)

    def on_closed(self) -> None:
        """Kill it, should it live: it cannot be talked to any more."""
        if not self.ended.done():
            self._process.kill()

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._set_ended, code)

    def _set_ended(self, code: int) -> None:
        self.ended.set_result(code)


class WorkerPool:
    """The worker processes of a shard, all with the same app."""

    def __init__(self, source: AppSource, settings: Settings) -> None:
        self._prepare = w.Prepare(
            source.reference,
            list(source.import_paths),
            msgspec.to_builtins(settings.limits),
            msgspec.to_builtins(settings.log),
            settings.host.host_id,
            msgspec.to_builtins(settings.tracing),
        )
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()

    async def perform(
        self, call: w.Perform, on_beat: Callable[[Raw], None], on_start: Callable[[], None]
    ) -> Raw | Failure:
        """Run an activity in a worker of its own for that time; return its outcome.

        `on_start` is called once there is a worker, which may have to import the app first.
        If this is cancelled, the worker is killed, and is gone when this has ended.
        """
        worker = None
        try:
            worker = self._idle_one() or await self._start()
            on_start()
            answer = await worker.ask(call, on_beat)
        except _Unprepared as problem:
            return Failure(type="ConfigInvalid", message=str(problem))
        except OSError as error:  # no more processes, descriptors, memory
            return failure_of(error)
        except WorkerEnded as error:
            message = f"{error} while it ran activity {call.name!r}"
            logger.warning("instance=%s %s", call.instance_id, message)
            return Failure(type="WorkerDied", message=message)
        except asyncio.CancelledError:
            if worker is not None:
                worker.kill()
                await asyncio.wait([worker.ended])
            raise
        if not worker.ended.done():
            self._idle.append(worker)
        if isinstance(answer, w.Returned):
            return answer.result
        assert isinstance(answer, w.Raised), "the answer to Perform"
        return answer.failure

    async def close(self) -> None:
        """Kill all of them, and wait until they are gone."""
        workers = list(self._all)
        self._idle.clear()
        for worker in workers:
            worker.kill()
        if workers:
            await asyncio.wait([worker.ended for worker in workers])

    @property
    def pids(self) -> list[int]:
        """The processes there are."""
        return [worker.pid for worker in self._all]

    def _idle_one(self) -> Worker | None:
        # The one used last: its memory is warm, and what is not needed stays asleep.
        return self._idle.pop() if self._idle else None

    async def _start(self) -> Worker:
        """Return a new worker that has imported the app. Raises `WorkerEnded`."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; returns at once
                [*interpreter(MODULE), str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(),
            )
        worker = Worker(process)
        self._all.add(worker)
        worker.ended.add_done_callback(partial(self._gone, worker))
        try:
            link = await connect_control(
                ours.detach(),
                w.FromWorker,
                worker.on_message,
                worker.on_closed,
                w.MESSAGE_BYTES_MAX,
            )
            worker.adopt(link)
            answer = await worker.ask(self._prepare)
        except asyncio.CancelledError:
            worker.kill()
            await asyncio.wait([worker.ended])
            raise
        assert isinstance(answer, w.Prepared), "the answer to Prepare"
        if answer.problem:
            worker.kill()
            raise _Unprepared(answer.problem)
        return worker

    def _gone(self, worker: Worker, ended: asyncio.Future[int]) -> None:
        self._all.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
            logger.warning("worker process %d %s", worker.pid, _how(ended.result()))


class _Unprepared(Exception):
    """A worker cannot import the app."""


def _how(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
