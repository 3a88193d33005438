"""A place for a child: which one it is to be, the child while there is one, and its restarts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardrt.host import black_box
from shardrt.supervisor.evidence import Watch, is_proof
from shardrt.supervisor.policy import RestartPolicy, Restarts
from shardrt.supervisor.process import ChildProcess, start_child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.cluster.renewal import Monotonic
    from shardrt.links import control

logger = logging.getLogger(__name__)

START_S_MAX = 120.0
"""A child that is not ready by then is replaced. Importing an app may take its time."""
LAST_WORDS_S = 0.5
"""Between asking a silent child for its stacks and killing it."""


class Slot:
    """One of the host's children, through all its lives."""

    def __init__(
        self,
        configure: control.Configure,
        *,
        clock: Monotonic,
        policy: RestartPolicy,
        watchdog_s: float,
        command: Sequence[str] = (),
    ) -> None:
        self.index = configure.index
        self.role = configure.role
        self.name = f"{configure.role}-{configure.index}"
        self.socket = configure.socket
        self.child: ChildProcess | None = None
        self.restarts = Restarts()
        self.left_behind = black_box.Found()
        """What ran in the child that died last, unless that was to end."""
        self.is_proof = False
        """Whether that proves that what its loop was in has ended it."""
        self._silence = Watch()
        self.failure = ""
        """Why this child will not be started again."""
        self._configure = configure
        self._clock = clock
        self._policy = policy
        self._watchdog_s = watchdog_s
        self._command = command
        self._next_start_s = clock.monotonic_s()

    @property
    def serves(self) -> bool:
        """Whether its child is up and not about to go."""
        child = self.child
        return child is not None and child.ready and not child.stopping and not child.condemned_s

    @property
    def listens(self) -> bool:
        """Whether its child is up, be it about to go."""
        return self.child is not None and self.child.ready

    @property
    def uptime_s(self) -> float:
        return 0.0 if self.child is None else self._clock.monotonic_s() - self.child.started_s

    def comes_soon(self, within_s: float) -> bool:
        """Return whether a child is starting, or will start within that time."""
        if self.failure:
            return False
        if self.child is not None:
            return not self.child.stopping and not self.child.condemned_s
        return self._next_start_s - self._clock.monotonic_s() <= within_s

    @property
    def due_in_s(self) -> float:
        """In how many seconds a child is started, unless there is one already."""
        if self.child is not None:
            return 0.0
        return max(0.0, self._next_start_s - self._clock.monotonic_s())

    @property
    def due(self) -> bool:
        """Whether a child should be started now."""
        idle = self.child is None and not self.failure
        return idle and self._clock.monotonic_s() >= self._next_start_s

    def send(self, message: control.ToChild) -> None:
        if self.child is not None:
            self.child.send(message)

    async def start(
        self, on_message: Callable[[Slot, Any], None], on_closed: Callable[[], None]
    ) -> None:
        """Start a child. Messages of earlier ones are no longer passed on."""

        def current(child: ChildProcess, message: Any) -> None:
            if child is self.child or self.child is None:
                on_message(self, message)

        self.child = await start_child(
            self._configure,
            now_s=self._clock.monotonic_s(),
            on_message=current,
            on_closed=on_closed,
            command=self._command,
        )

    def reap(self) -> bool:
        """Return whether the child has died since the last call, and plan the next one."""
        child = self.child
        now_s = self._clock.monotonic_s()
        if child is None or (code := child.ended(now_s)) is None:
            return False
        self.child = None
        child.close()
        self.left_behind = black_box.take(Path(self.socket + black_box.SUFFIX))
        self.is_proof = is_proof(self.left_behind, code, has_spun=self._silence.has_spun)
        self._silence = Watch()
        if child.stopping:
            self.left_behind = black_box.Found()
            return True
        delay_s = self._ended(child, code, now_s)
        if delay_s is not None:
            self._next_start_s = now_s + delay_s
        return True

    def _ended(self, child: ChildProcess, code: int, now_s: float) -> float | None:
        uptime_s = now_s - child.started_s
        delay_s = self.restarts.died(self._policy, uptime_s=uptime_s, was_ready=child.ready)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if delay_s is None:
            self.failure = f"{self.name} ended {self.restarts.total} times while starting ({how})"
            return None
        logger.warning(
            "%s pid=%d ended after %.1f s (%s), restart in %.2f s",
            self.name,
            child.pid,
            uptime_s,
            how,
            delay_s,
        )
        return delay_s

    def watch(self) -> None:
        """Kill the child if its loop has been silent for too long."""
        child = self.child
        if child is None:
            return
        now_s = self._clock.monotonic_s()
        self._silence.look(now_s, child.heard_s, child.cpu_s)
        if child.condemned_s is not None:
            if now_s - child.condemned_s >= LAST_WORDS_S:
                child.kill()
            return
        silent_s = now_s - child.heard_s
        if silent_s > (self._watchdog_s if child.ready else START_S_MAX):
            running = ", ".join(child.beat.running) or "nothing known"
            logger.error(
                "%s pid=%d has been blocked for %.1f s, running: %s; its stacks follow",
                self.name,
                child.pid,
                silent_s,
                running,
            )
            child.condemned_s = now_s
            child.tell_where()

    def forgive(self) -> None:
        """Forget the child's silence: it was this process that did not listen."""
        if self.child is not None:
            self.child.heard_s = self._clock.monotonic_s()
