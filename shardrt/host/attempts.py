"""One run of an activity: who asked for it, and what it and the pool know of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Raw

from shardrt.core.effects import RunActivity
from shardrt.host.payloads import DETAILS, Payloads

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from shardrt.core.history import Failure
    from shardrt.host.gates import Gate
    from shardrt.orchestration.definitions import ActivityDefinition
    from shardrt.orchestration.middleware import ExecutionMiddleware


class Asker(Protocol):
    """Who wants the outcome: one partition under one epoch."""

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        """Take the outcome of an attempt."""
        ...


class Owner(Asker, Protocol):
    """What transactional activities must know of who asks: the fence."""

    partition: int
    epoch: int

    def discard(self) -> None:
        """Give everything up: the epoch is over."""
        ...


class Attempt(msgspec.Struct, frozen=True, eq=False):
    """One run of an activity, asked for by one partition."""

    asker: Asker
    run: RunActivity


Key = tuple[str, str, int]


def key_of(run: RunActivity) -> Key:
    """Return what no two attempts in a pool have in common."""
    return run.instance_id, run.execution_id, run.task_id


class Control(msgspec.Struct, eq=False):
    """What a running activity can see of the pool. Used from the thread that it runs in."""

    payloads: Payloads
    time: Callable[[], float]
    details: Raw
    """What it told when it was last heard of, or an earlier attempt did."""
    beat_s: float = 0.0
    """When that was, in time of the loop."""
    cancelled: bool = False

    def heartbeat(self, details: Raw) -> None:
        """Take a sign of life."""
        self.beat(self.payloads.stored(details, DETAILS))

    def beat(self, details: Raw) -> None:
        """Do the same with details as they are stored."""
        self.beat_s = self.time()
        self.details = details

    def is_cancelled(self) -> bool:
        return self.cancelled


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What all runs of one activity have in common."""

    activity: ActivityDefinition
    gates: tuple[Gate, ...]
    """It runs only with a place behind each of them."""
    body: Callable[[Running], Coroutine[None, None, None]]
    call: Callable[[Any, Raw], Any]
    """With the context, which may be None if it is not taken, and the input as plain JSON."""
    takes_context: bool
    around: tuple[ExecutionMiddleware, ...] = ()
    """What is wrapped around a call outside of the loop; within, `call` sees to it."""
    may_share: bool = False
    """Whether it may end without waiting for anything, so that many can share a task."""


class Running(msgspec.Struct, eq=False):
    """A started attempt."""

    attempt: Attempt
    key: Key
    kind: Kind
    control: Control
    began_s: float
    """In time of the loop."""
    task: asyncio.Task[None] | None = None
    """None as long as it has not begun and may come to share one; see `runners`."""
    timer: asyncio.TimerHandle | None = None
    """Rings when it has taken too long."""
    pulse: asyncio.TimerHandle | None = None
    """Rings when it has been silent for too long, unless it was heard of meanwhile."""
    in_thread: bool = False
    """Its code runs in a thread now; what is around it runs in the loop."""

    def stop(self) -> None:
        """Tell the code to end. A thread can only be told: it looks at `is_cancelled`."""
        self.control.cancelled = True
        self.disarm()
        if self.task is not None and not self.in_thread:
            # NB: a task that is cancelled before it ran at all never runs.
            self.task.cancel()

    def disarm(self) -> None:
        for handle in (self.timer, self.pulse):
            if handle is not None:
                handle.cancel()
        self.timer = self.pulse = None
