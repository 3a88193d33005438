"""What one execution asked for, and what it still waits for.

The ledger numbers the calls, collects the actions of the turn, and finds who waits when
something arrives. While an execution is rebuilt, `expected` holds what history says was
asked for in the turn, and every action is compared as it is made, so that a difference is
reported with the line of user code at fault.

An *inert* ledger belongs to an execution that is being dropped: from then on nothing the
code does counts. Calls raise GeneratorExit, which is what a suspended coroutine sees when
it is closed, so that cleanup code ends at its first durable call.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from shardrt.core.history import (
    Action,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EntityUnlockSent,
    EventRaised,
    EventSent,
    Failure,
    PatchMarked,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
)
from shardrt.orchestration.source import line_of_caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msgspec import Raw

    from shardrt.orchestration.critical_section import CriticalSection
    from shardrt.orchestration.middleware import Permits

ACTIONS_MAX = 250_000
"""Of one turn. More are made by a loop without end, which would fill the memory within seconds."""
REFUSALS_MAX = 100
"""So often does an inert ledger raise. User code that swallows even GeneratorExit in a loop
would otherwise never give up control; after that its calls just never complete."""


Guard: TypeAlias = Literal["refuse", "warn", "off"]


class Waiter(Protocol):
    """Who waits for something that carries a task id."""

    def complete(self, result: Raw, /) -> None: ...

    def fail(self, failure: Failure, /) -> None: ...


class EventWaiter(Protocol):
    """Who waits for an external event."""

    name: str

    def deliver(self, event: EventRaised) -> None: ...


_ADDRESSED = (
    SubOrchestrationInstanceCreated,
    EventSent,
    EntityOperationCalled,
    EntityOperationSignaled,
)

Identity: TypeAlias = tuple[object, ...]


def identity(action: Action) -> Identity:
    """Return what must be equal when an action is made again in a replay."""
    if isinstance(action, TaskScheduled):
        return (TaskScheduled, action.task_id, action.name)
    if isinstance(action, _ADDRESSED):
        return (type(action), action.task_id, action.name, action.instance_id)
    if isinstance(action, PatchMarked):
        return (PatchMarked, action.name)
    if isinstance(action, EntityLockRequested):
        return (EntityLockRequested, action.task_id, action.entities)
    if isinstance(action, EntityUnlockSent):
        return (EntityUnlockSent, action.task_id, action.instance_id)
    return (type(action), action.task_id)


def describe(action: Action | None) -> str:
    """Return an action in a few words."""
    if action is None:
        return "nothing"
    if isinstance(action, PatchMarked):
        return f"PatchMarked {action.name!r}"
    text = f"{type(action).__name__} #{action.task_id}"
    if isinstance(action, TaskScheduled):
        text += f" {action.name!r}"
    elif isinstance(action, _ADDRESSED):
        text += f" {action.name!r} for {action.instance_id!r}"
    elif isinstance(action, EntityLockRequested):
        text += f" for {', '.join(action.entities)}"
    elif isinstance(action, EntityUnlockSent):
        text += f" for {action.instance_id!r}"
    return text


class Ledger:
    """See the module."""

    __slots__ = (
        "actions",
        "canceling",
        "continued",
        "custom_status",
        "events",
        "expected",
        "guard",
        "inert",
        "last_id",
        "mismatch",
        "now",
        "patches",
        "pending",
        "permits",
        "refusals",
        "replaying",
        "section",
    )

    def __init__(self, now: int, guard: Guard = "off") -> None:
        self.now = now
        """Microseconds; the time of the turn."""
        self.guard: Guard = guard
        """What happens if the code calls what is not deterministic; see `guard`."""
        self.last_id = 0
        self.actions: list[Action] = []
        """Of this turn."""
        self.canceling = False
        """The code runs because it is cancelled from outside."""
        self.pending: dict[int, Waiter] = {}
        """By task id."""
        self.events: Mailbox | None = None
        self.custom_status: Raw | None = None
        """Set in this turn."""
        self.continued: tuple[Raw, bool, str | None] | None = None
        """Input of the next execution, whether unconsumed events go with it, its version."""
        self.replaying = False
        self.expected: Sequence[Action] = ()
        """Of this turn, while replaying."""
        self.patches: dict[str, bool] | None = None
        """What the code was told about each patch, so that it is told the same again."""
        self.mismatch: str | None = None
        """Why this turn must not count: code and history differ, or a call was refused."""
        self.inert = False
        self.refusals = 0
        self.permits: Permits | None = None
        """To be asked before what is scheduled, if the app has middleware for that."""
        self.section: CriticalSection | None = None
        """The one that the code is in, or about to enter."""

    def new_id(self) -> int:
        """Return the id for a new call."""
        if self.inert:
            self.refuse()
        self.last_id += 1
        return self.last_id

    def refuse(self) -> None:
        """Stop the caller, because this ledger is inert."""
        self.refusals += 1
        if self.refusals <= REFUSALS_MAX:
            raise GeneratorExit

    def emit(self, action: Action) -> None:
        """Add an action to the turn."""
        if self.inert:
            return
        if self.replaying:
            self._compare(action)
        elif len(self.actions) >= ACTIONS_MAX:
            self._stop_runaway()
        self.actions.append(action)

    def _stop_runaway(self) -> None:
        self.inert = True
        self.mismatch = (
            f"one turn asked for more than {ACTIONS_MAX} things without waiting for any: "
            f"does a loop lack an await?{line_of_caller()}"
        )
        raise GeneratorExit

    def next_expected(self) -> Action | None:
        """Return what history says comes next in the turn."""
        position = len(self.actions)
        return self.expected[position] if position < len(self.expected) else None

    def marked(self, name: str) -> PatchMarked | None:
        """Return the marker of a patch, if history has it in this place."""
        self.pass_deprecated(name)
        expected = self.next_expected()
        if isinstance(expected, PatchMarked) and expected.name == name:
            return expected
        return None

    def pass_deprecated(self, name: str | None = None) -> None:
        """Go past markers that code may have or not have, up to that of the patch `name`."""
        expected = self.next_expected()
        while isinstance(expected, PatchMarked) and expected.deprecated and expected.name != name:
            self.actions.append(expected)
            expected = self.next_expected()

    def _compare(self, action: Action) -> None:
        expected = self.next_expected()
        if isinstance(expected, PatchMarked):
            self.pass_deprecated(action.name if isinstance(action, PatchMarked) else None)
            expected = self.next_expected()
        if expected is None or identity(expected) != identity(action):
            self.disagree(expected, describe(action), line_of_caller())
            raise GeneratorExit

    def disagree(self, expected: Action | None, got: str, line: str) -> None:
        """Stop the replay, because code and history differ."""
        self.inert = True
        self.mismatch = (
            f"not deterministic: history says {describe(expected)}, the code asked for {got}{line}"
        )

    def take(self) -> tuple[tuple[Action, ...], Raw | None]:
        """Return the actions and the custom status of the turn, and forget them."""
        actions = tuple(self.actions)
        self.actions.clear()
        status, self.custom_status = self.custom_status, None
        return actions, status

    def mailbox(self) -> Mailbox:
        """Return the external events, made at first use."""
        if self.events is None:
            self.events = Mailbox()
        return self.events


class Mailbox:
    """External events: who waits for which, and what came before it was waited for.

    First come, first served per name. Names compare without case.
    """

    __slots__ = ("_buffered", "_order", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[str, list[EventWaiter]] = {}
        self._buffered: dict[str, deque[tuple[int, EventRaised]]] = {}
        self._order = 0

    def wait(self, name: str, waiter: EventWaiter) -> None:
        """Serve `waiter` with the oldest event of that name, now or when one comes."""
        key = name.casefold()
        buffered = self._buffered.get(key)
        if buffered is None:
            self._waiters.setdefault(key, []).append(waiter)
            return
        _, event = buffered.popleft()
        if not buffered:
            del self._buffered[key]
        waiter.deliver(event)

    def forget(self, name: str, waiter: EventWaiter) -> None:
        """Take a waiter out of the queue, so that it does not swallow an event."""
        key = name.casefold()
        waiters = self._waiters.get(key, [])
        waiters[:] = [other for other in waiters if other is not waiter]
        if not waiters:
            self._waiters.pop(key, None)

    def arrive(self, event: EventRaised) -> None:
        """Hand an event to whoever waits longest, or keep it."""
        key = event.name.casefold()
        waiters = self._waiters.get(key)
        if waiters is None:
            self._order += 1
            self._buffered.setdefault(key, deque()).append((self._order, event))
            return
        waiter = waiters.pop(0)
        if not waiters:
            del self._waiters[key]
        waiter.deliver(event)

    def awaited(self) -> tuple[str, ...]:
        """Return the names that somebody waits for, as they were given."""
        return tuple(waiters[0].name for waiters in self._waiters.values())

    def unconsumed(self) -> tuple[EventRaised, ...]:
        """Return what nobody asked for, oldest first."""
        numbered = [entry for entries in self._buffered.values() for entry in entries]
        numbered.sort(key=lambda entry: entry[0])
        return tuple(event for _, event in numbered)
