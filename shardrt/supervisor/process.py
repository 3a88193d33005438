"""One child process: its start, its control link, its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardrt.host.interpreter import environment, interpreter
from shardrt.links import control
from shardrt.links.control_link import ControlLink, connect_control

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""How long after its death a child's link is read."""

MODULES = {"shard": "shardrt.host.process", "gateway": "shardrt.http.process"}


class ChildProcess:
    """A running child. Made by `start_child`; it has ended once `ended` says so."""

    def __init__(self, process: subprocess.Popen[bytes], started_s: float) -> None:
        self._process = process
        self._link: ControlLink | None = None
        self.pid = process.pid
        self.started_s = started_s
        self.heard_s = started_s
        """When it last proved that its loop turns."""
        self.ready = False
        self.stopping = False
        self.beat = control.Beat()
        self.condemned_s: float | None = None
        """Since when it is to be killed for its silence."""
        self._link_ended = False
        self._dead_since_s: float | None = None

    def adopt(self, link: ControlLink) -> None:
        self._link = link

    def on_link_end(self) -> None:
        self._link_ended = True

    def ended(self, now_s: float) -> int | None:
        """Return its exit code, negative for a signal; None while it lives. Reaps it.

        A dead child counts as living until its last words are read, that is until its link
        has ended too; but not for long, as a process of its own may hold the link open.
        """
        code = self._process.poll()
        if code is None:
            return None
        if self._dead_since_s is None:
            self._dead_since_s = now_s
        return code if self._link_ended or now_s - self._dead_since_s > LAST_WORDS_S else None

    def send(self, message: control.ToChild) -> None:
        """Send, or drop if its link has ended."""
        if self._link is not None:
            self._link.send(message)

    def stop(self, grace_s: float) -> None:
        """Ask it, once, to drain and end."""
        if not self.stopping:
            self.stopping = True
            self.send(control.Stop(grace_s))

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def cpu_s(self) -> float | None:
        """Return what its first thread, that of the loop, has computed; None if unknown."""
        try:
            stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text(encoding="ascii")
            user, system = stat.rpartition(")")[2].split()[11:13]
        except (OSError, ValueError):  # dead, or no Linux
            return None
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def tell_where(self) -> None:
        """Have it print the stack of each thread to its stderr."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        """Give back the link of a dead child."""
        if self._link is not None:
            self._link.close()


async def start_child(
    configure: control.Configure,
    *,
    now_s: float,
    on_message: Callable[[ChildProcess, Any], None],
    on_closed: Callable[[], None],
    command: Sequence[str] = (),
) -> ChildProcess:
    """Start a child with a fresh interpreter and send it its configuration.

    Args:
        configure: its first message; `role` says what to run.
        now_s: monotonic time.
        on_message: called with each message of the child.
        on_closed: called when its link has ended, which it does when the child dies.
        command: what to run instead, for tests; gets the same two arguments.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        inherited = [theirs.fileno()]
        if configure.listen_fd >= 0:
            inherited.append(configure.listen_fd)
        arguments = [str(theirs.fileno()), str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; returns at once
            [*(command or interpreter(MODULES[configure.role])), *arguments],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            env=environment(configure.role),
        )
    child = ChildProcess(process, now_s)

    def link_ended() -> None:
        child.on_link_end()
        on_closed()

    link = await connect_control(
        ours.detach(), control.FromChild, lambda message: on_message(child, message), link_ended
    )
    child.adopt(link)
    child.send(configure)
    return child
