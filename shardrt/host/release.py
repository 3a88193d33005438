"""Effects held back until the record that caused them is durable."""

from __future__ import annotations

from collections import deque

import msgspec

from shardrt.core.effects import Effect


class Held(msgspec.Struct, frozen=True, gc=False):
    """Effects that wait for a record."""

    lsn: int
    effects: list[Effect]


class Release:
    """A queue of effects in journal order.

    Invariant: what `until` returns was caused by records up to the durable LSN only.
    """

    __slots__ = (
        "_held",
        "durable",
        "sealed",
    )

    def __init__(self, lsn: int) -> None:
        self.sealed = lsn
        self.durable = lsn
        self._held: deque[Held] = deque()

    def seal(self, *, has_record: bool, effects: list[Effect]) -> int:
        """Hold effects; they wait for the record being sealed, or for all sealed before."""
        if has_record:
            self.sealed += 1
        if effects:
            self._held.append(Held(self.sealed, effects))
        return self.sealed

    def until(self, lsn: int) -> list[Effect]:
        """Note that everything up to `lsn` is durable; return what may happen now, in order."""
        self.durable = max(self.durable, lsn)
        held = self._held
        free: list[Effect] = []
        while held and held[0].lsn <= self.durable:
            free += held.popleft().effects
        return free

    def drain(self) -> list[Effect]:
        """Return everything still held: it will never happen here."""
        effects = [effect for held in self._held for effect in held.effects]
        self._held.clear()
        return effects
