"""One run of an activity: who asked for it, and what it and the pool know of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from msgspec import Raw

    from shardrt.core.effects import RunActivity
    from shardrt.core.history import Failure
    from shardrt.host.gates import Gate
    from shardrt.orchestration.definitions import ActivityDefinition


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


def key_of(run: RunActivity) -> Key:
    """Return what no two attempts in a pool have in common."""
    return run.instance_id, run.execution_id, run.task_id


class Control:
    """What a running activity can see of the pool. Used from the thread that it runs in."""

    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def heartbeat(self, details: Raw) -> None:
        """Take a sign of life."""

    def is_cancelled(self) -> bool:
        return self.cancelled


class Kind(NamedTuple):
    """What all runs of one activity have in common."""

    activity: ActivityDefinition
    gates: tuple[Gate, ...]
    """It runs only with a place behind each of them."""
    body: Callable[[Running], Coroutine[None, None, None]]


class Running:
    """A started attempt."""

    __slots__ = ("attempt", "control", "kind", "task", "timer")

    def __init__(self, attempt: Attempt, kind: Kind) -> None:
        self.attempt = attempt
        self.kind = kind
        self.control = Control()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        """Rings when it has taken too long."""

    def stop(self) -> None:
        """Tell the code to end. A thread can only be told: it looks at `is_cancelled`."""
        self.control.cancelled = True
        self.disarm()
        if self.task is not None and self.kind.activity.executor != "thread":
            # NB: a task that is cancelled before it ran at all never runs.
            self.task.cancel()

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
