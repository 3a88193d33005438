"""Limiters: who may run now, of all who share a limit anywhere in the hub.

A limiter hands out *slots*, first come, first served. A slot is for one attempt of an activity:
it is wanted before the attempt, granted or not yet, and given back when the attempt has an
outcome or nobody waits for that any more. Wants, grants and returns are messages in order and
exactly once, so a return never comes before its want, and what was wanted is given back.

A limiter lives in the partition of its id, ``@$limit@name`` or ``@$limit@name/key``, in the row
of an entity that nobody can call. It is forgotten a while after it was last used.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

LIMIT = "$limit"
"""The entity name of all limiters. No entity of users can have it."""
RATE_MAX = 1000
"""So many grants at most within a window: the time of each is kept."""
LINGER = 60_000_000
"""How long an unused limiter is kept, µs: one in steady use is not created again and again."""

_PREFIX = f"@{LIMIT}@"


def limiter_id(name: str, key: str | None = None) -> str:
    """Return the id of a limiter. The name has no slash in it, so that ids are unambiguous."""
    return f"{_PREFIX}{name}" if key is None else f"{_PREFIX}{name}/{key}"


def is_limiter_id(instance_id: str) -> bool:
    """Whether an id is that of a limiter."""
    return instance_id.startswith(_PREFIX)


def limit_and_key(instance_id: str) -> tuple[str, str | None]:
    """Return the name of a limit and the key, from the id of its limiter."""
    name, slash, key = instance_id.removeprefix(_PREFIX).partition("/")
    return name, key if slash else None


def slot_of(instance_id: str, execution_id: str, task_id: int, attempt: int) -> str:
    """Return the name of a slot: no two attempts ever have the same."""
    return f"{task_id}:{attempt}:{execution_id}:{instance_id}"


class SlotHolder(NamedTuple):
    """The attempt that a slot is for."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int


def holder_of(slot: str) -> SlotHolder:
    """Return what a slot is named after; ids of executions have no colon."""
    task_id, attempt, execution_id, instance_id = slot.split(":", 3)
    return SlotHolder(instance_id, execution_id, int(task_id), int(attempt))


class Numbers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How much a limit allows: at least one of the two is given."""

    concurrency: int | None = None
    """Slots at a time."""
    rate: int | None = None
    """Grants within any window."""
    per: int = 0
    """Length of the window, µs. It includes its beginning and not its end."""


class Limiter(msgspec.Struct, omit_defaults=True):
    """The slots of one limit, or of one key of it."""

    numbers: Numbers = Numbers()
    as_of: int = 0
    """When the call was made that brought these numbers; those of an older one do not count."""
    holders: dict[str, int] = {}
    """Slot → when it was granted."""
    waiting: dict[str, int] = {}
    """Slot → when it was wanted, oldest first."""
    grants: list[int] = []
    """When the newest slots were granted, oldest first: as many as there are in a window."""
    due: int | None = None
    """When to look again: a window has room again, or nobody has used it for long."""

    def __post_init__(self) -> None:
        # A plain dict walks over all that have left its front, again and again.
        self.waiting = OrderedDict(self.waiting)

    @property
    def is_unused(self) -> bool:
        """Whether nobody has or wants a slot."""
        return not (self.holders or self.waiting)

    def want(self, slot: str, numbers: Numbers, as_of: int, at: int) -> None:
        """Put an attempt in line; see `advance`. A repeated want changes nothing.

        Args:
            slot: its name.
            numbers: how much is allowed, as far as who wants it knows.
            as_of: when its activity was called: numbers of an earlier call are out of date.
            at: now; never less than before.
        """
        if as_of >= self.as_of:
            self.numbers, self.as_of = numbers, as_of
        if slot not in self.holders and slot not in self.waiting:
            self.waiting[slot] = at

    def give_back(self, slot: str) -> None:
        """Take a slot back, or a want that was not granted; see `advance`."""
        if self.holders.pop(slot, None) is None:
            self.waiting.pop(slot, None)

    def advance(self, at: int) -> list[str]:
        """Grant what may be granted, and return it; `due` says when to call this again."""
        granted: list[str] = []
        while self.waiting and self._has_place and self._earliest <= at:
            slot = next(iter(self.waiting))
            del self.waiting[slot]
            self.holders[slot] = at
            self._note_grant(at)
            granted.append(slot)
        self.due = self._next_due(at)
        return granted

    @property
    def _has_place(self) -> bool:
        concurrency = self.numbers.concurrency
        return concurrency is None or len(self.holders) < concurrency

    @property
    def _earliest(self) -> int:
        """When the window has room for one more grant; 0 if it has."""
        rate = self.numbers.rate
        if rate is None or len(self.grants) < rate:
            return 0
        # A grant is in the same window as all that are younger than `per`.
        return self.grants[-rate] + self.numbers.per

    def _note_grant(self, at: int) -> None:
        rate = self.numbers.rate
        if rate is None:
            self.grants = []
        else:
            self.grants.append(at)
            del self.grants[:-rate]

    def _next_due(self, at: int) -> int | None:
        if self.waiting:
            return self._earliest if self._has_place else None
        if self.holders:
            return None
        last = self.grants[-1] if self.grants else 0
        return max(at + LINGER, last + self.numbers.per)
