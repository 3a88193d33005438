"""Bugs of clients with lines to several hosts; see `tests.sim.bugs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.client.session import Session
from tests.sim.patching import Patch, bug

if TYPE_CHECKING:
    from shardrt.client.pending import Pending


@bug("another number by another line", "I1")
def _(patch: Patch) -> None:
    def make(send: Any) -> Any:
        def anew(self: Session, pending: Pending) -> None:
            if pending.elsewhere and self._calls.pop(pending.seq, None) is not None:
                self._seq = pending.seq = self._seq + 1
                self._calls[pending.seq] = pending
                self._writes.append(pending.seq)
            send(self, pending)

        return anew

    patch(Session, "_send", make)


@bug("settled when sent by another line", "I1")
def _(patch: Patch) -> None:
    def make(low: Any) -> Any:
        def hasty(self: Session) -> int:
            writes, calls = self._writes, self._calls
            while writes and (writes[0] not in calls or calls[writes[0]].elsewhere):
                writes.popleft()
            lowest: int = low(self)
            return lowest

        return hasty

    patch(Session, "_low", make)


@bug("what a lost line owed is forgotten", "liveness")
def _(patch: Patch) -> None:
    def make(on_down: Any) -> Any:
        def forgetful(self: Session, line: Any) -> None:
            if self._lines.main is None:
                on_down(self, line)

        return forgetful

    patch(Session, "on_down", make)
