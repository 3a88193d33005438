"""What every child process of a supervisor has in common: how it starts, lives and ends.

A child knows nothing but the descriptor of its control link and its parent's pid; all else
comes with `Configure`. It never outlives its parent: the kernel kills it with the parent
(Linux), and the end of the control link ends it at once everywhere else. Ctrl-C and SIGTERM
reach the whole process group or cgroup, but only the supervisor answers them: children are
told to stop in order, over the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import msgspec

from shardrt.config import Settings
from shardrt.host.logs import log_to_stderr
from shardrt.links import control
from shardrt.links.control_link import ControlLink, connect_control
from shardrt.tracing.providing import flush

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_FATAL = 2
EXIT_ORPHANED = 3
BEAT_INTERVAL_S = 0.5
_PR_SET_PDEATHSIG = 1


class FatalStart(Exception):
    """This child cannot work, and a restart would not help. Its text is one clear line."""


class Parent:
    """The supervisor, as its child sees it."""

    def __init__(self) -> None:
        self._link: ControlLink | None = None
        self._inbox: asyncio.Queue[control.ToChild] = asyncio.Queue()
        self._leaving = False

    async def connect(self, fd: int) -> control.Configure:
        """Take over the control link and return the first message."""
        self._link = await connect_control(
            fd, control.ToChild, self._inbox.put_nowait, self._orphaned
        )
        configure = await self._inbox.get()
        assert isinstance(configure, control.Configure)
        return configure

    def send(self, *messages: msgspec.Struct) -> None:
        assert self._link is not None
        self._link.send(*messages)

    async def receive(self) -> control.ToChild:
        """Return the next message of the supervisor."""
        return await self._inbox.get()

    async def beat(self, facts: Callable[[], control.Beat] = control.Beat) -> None:
        """Prove twice a second, until cancelled, that this loop turns."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            now_s = loop.time()
            self.send(msgspec.structs.replace(facts(), lag_s=round(now_s - due_s, 3)))
            due_s = now_s + BEAT_INTERVAL_S
            await asyncio.sleep(BEAT_INTERVAL_S)

    async def leave(self) -> None:
        """Close the link, after everything that was sent has left."""
        self._leaving = True
        if self._link is not None:
            self._link.close()
            await self._link.wait_closed()

    def _orphaned(self) -> None:
        # At once, with no clean-up: a successor may own the partitions already.
        if not self._leaving:
            os._exit(EXIT_ORPHANED)


def run_child(serve: Callable[[Parent, control.Configure], Coroutine[Any, Any, None]]) -> None:
    """Be a child process until `serve` returns (exit 0), or fails, or the parent ends.

    `serve` is called once, in a fresh event loop, with the parent and its first message. It
    may raise `FatalStart`: the supervisor prints its text and gives up.
    """
    fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    die_with(parent_pid)
    let_others_finish()
    # Tells where it hangs, however busy the interpreter is; the watchdog asks before it kills.
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_live(fd, serve))
    _exit(code)


async def _live(
    fd: int, serve: Callable[[Parent, control.Configure], Coroutine[Any, Any, None]]
) -> int:
    parent = Parent()
    configure = await parent.connect(fd)
    log = msgspec.convert(configure.settings, Settings).log
    log_to_stderr(f"{configure.role}-{configure.index}", log, host_id=configure.host_id)
    try:
        await serve(parent, configure)
    except FatalStart as error:
        parent.send(control.Fatal(str(error)))
        return EXIT_FATAL
    except Exception:
        logger.exception("%s %s failed", configure.role, configure.index)
        return EXIT_FAILED
    finally:
        await parent.leave()
    return 0


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the call above.
    if os.getppid() != parent_pid:
        os._exit(EXIT_ORPHANED)


def let_others_finish() -> None:
    """Have this process, when it wakes up, not interrupt another that is at work (Linux only).

    It works on what has gathered, in turn with the others on its way: an interruption costs both
    their caches, and gains nothing. Whoever started it with another policy than the default has
    reasons.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # not allowed here
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's, where there is uvloop."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


def _exit(code: int) -> None:
    """End the process, also if user code still runs in a thread."""
    flush()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(t is not threading.main_thread() and not t.daemon for t in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
