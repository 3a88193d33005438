"""A worker process: ``python -m shardrt.host.worker``, started by a shard's `WorkerPool`.

It imports the user's app and runs its `executor="process"` activities, one at a time. What
crosses the link is names, JSON and failures, never objects. A worker has no state that anybody
would miss: it is killed when its activity is cancelled, and with its shard.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from shardrt.config.settings import LimitSettings, LogSettings, TracingSettings
from shardrt.errors import ConfigInvalid
from shardrt.host.bounds import Bounds
from shardrt.host.child import die_with
from shardrt.host.imports import import_app
from shardrt.host.logs import log_to_stderr
from shardrt.host.payloads import DETAILS, Payloads
from shardrt.links import worker_link as w
from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.failure import failure_of
from shardrt.tracing.providing import provide

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from shardrt.orchestration.app import App

EXIT_ORPHANED = 3
BEAT_S_MIN = 0.01
"""Heartbeats that follow each other faster than this are not all sent."""


class Worker:
    """The activities of one app, as asked for over the link."""

    def __init__(self, link: w.BlockingLink[w.ToWorker], app: App, bounds: Bounds) -> None:
        self._link = link
        self._app = app
        self._payloads = Payloads(app, bounds)
        self._beats: tuple[w.Beat, ...] = ()
        """The newest, if it has not been sent."""
        self._sent_s = 0.0

    def serve(self, call: w.Perform) -> None:
        """Run an activity and send its outcome."""
        answer = _within(call.trace, self.perform, call)
        beats, self._beats = self._beats, ()
        self._link.send(*beats, answer)

    def perform(self, call: w.Perform) -> w.Returned | w.Raised:
        """Run an activity; whatever it raises is data."""
        try:
            binding = self._app.find_activity(call.name).binding
            value = binding.call(self._context(call), self._payloads.open(call.input))
            return w.Returned(self._payloads.result(value, call.name))
        except BaseException as error:  # noqa: BLE001 - what users raise is data, also SystemExit
            return w.Raised(failure_of(error))

    def _context(self, call: w.Perform) -> ActivityContext:
        return ActivityContext(
            instance_id=call.instance_id,
            execution_id=call.execution_id,
            name=call.name,
            task_id=call.task_id,
            attempt=call.attempt,
            host_id=call.host_id,
            shard=call.shard,
            control=self,
            details=self._payloads.open(call.heartbeat),
        )

    # -- orchestration.activity.ActivityControl ----------------------------------------------

    def heartbeat(self, details: Raw) -> None:
        details = self._payloads.stored(details, DETAILS)
        now_s = time.monotonic()
        if now_s < self._sent_s + BEAT_S_MIN:
            self._beats = (w.Beat(details),)
        else:
            self._sent_s, self._beats = now_s, ()
            self._link.send(w.Beat(details))

    def is_cancelled(self) -> bool:
        """Return False: this process is killed instead."""
        return False


def main() -> None:
    """Work until the shard ends."""
    fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # they go to the whole group; the shard decides
    die_with(parent_pid)
    faulthandler.enable()
    os.set_inheritable(fd, False)  # the link must end with this process
    link: w.BlockingLink[w.ToWorker] = w.BlockingLink(socket.socket(fileno=fd), w.ToWorker)
    inbox: queue.SimpleQueue[w.ToWorker] = queue.SimpleQueue()
    # Reads on while an activity runs, so that the end of the shard ends this process at once.
    threading.Thread(target=_read, args=(link, inbox), daemon=True).start()
    prepare = inbox.get()
    assert isinstance(prepare, w.Prepare)
    log = msgspec.convert(prepare.log, LogSettings)
    log_to_stderr(f"worker-{os.getpid()}", log, host_id=prepare.host_id)
    worker = _prepared(link, prepare)
    while worker is not None:
        call = inbox.get()
        assert isinstance(call, w.Perform)
        worker.serve(call)


def _prepared(link: w.BlockingLink[w.ToWorker], prepare: w.Prepare) -> Worker | None:
    sys.path[:0] = [path for path in prepare.import_paths if path not in sys.path]
    try:
        app = import_app(prepare.app)
    except ConfigInvalid as error:
        link.send(w.Prepared(str(error)))
        return None
    provide(
        msgspec.convert(prepare.tracing, TracingSettings), f"worker-{os.getpid()}", prepare.host_id
    )
    link.send(w.Prepared())
    return Worker(link, app, Bounds(msgspec.convert(prepare.limits, LimitSettings)))


def _within(
    trace: str, perform: Callable[[w.Perform], w.Returned | w.Raised], call: w.Perform
) -> w.Returned | w.Raised:
    """Perform a call within a span, if there is one."""
    if not trace:
        return perform(call)
    # By name: it needs a package that is optional.
    context: Context = import_module("shardrt.tracing.tracer").context_in(trace)
    return context.run(perform, call)


def _read(link: w.BlockingLink[w.ToWorker], inbox: queue.SimpleQueue[w.ToWorker]) -> None:
    try:
        while True:
            for message in link.receive():
                inbox.put(message)
    except (EOFError, OSError):
        os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    main()
