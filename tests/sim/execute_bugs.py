"""Bugs of starts that are answered by the end of their instance; see `tests.sim.bugs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardrt.client.session import Session
from shardrt.cluster.routing import Router
from shardrt.host.visitor import Visitor
from shardrt.links.messages import Accepted
from tests.sim.patching import Patch, bug

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardrt.client.pending import Pending


@bug("taken before commit", "I1")
def _(patch: Patch) -> None:
    def make(on_messages: Any) -> Any:
        def hasty(self: Visitor, messages: list[Any]) -> None:
            on_messages(self, messages)
            if self._runs:
                self._link.send(Accepted(tuple(self._runs)))

        return hasty

    patch(Visitor, "on_messages", make)


@bug("settled when its end is wanted", "I1")
def _(patch: Patch) -> None:
    def make(low: Any) -> Any:
        def hasty(self: Session) -> int:
            writes, calls = self._writes, self._calls
            while writes and (writes[0] not in calls or calls[writes[0]].wants_end):
                writes.popleft()
            lowest: int = low(self)
            return lowest

        return hasty

    patch(Session, "_low", make)


@bug("another number for what is taken", "I5")
def _(patch: Patch) -> None:
    starts: dict[Pending, Any] = {}

    def make_on_accepted(on_taken: Any) -> Any:
        def noting(self: Session, seqs: Iterable[int]) -> None:
            seqs = tuple(seqs)
            calls = [self._calls[seq] for seq in seqs if seq in self._calls]
            starts.update({each: each.request for each in calls if each.wants_end})
            on_taken(self, seqs)

        return noting

    def make_send(send: Any) -> Any:
        def anew(self: Session, pending: Pending) -> None:
            if (start := starts.pop(pending, None)) is not None:
                self._forget(pending)
                self._seq = pending.seq = self._seq + 1
                pending.request, pending.wants_end = start, True
                self._calls[pending.seq] = pending
                self._writes.append(pending.seq)
            send(self, pending)

        return anew

    patch(Session, "_on_accepted", make_on_accepted)
    patch(Session, "_send", make_send)


@bug("the router forgets what is taken", "liveness")
def _(patch: Patch) -> None:
    def make(on_taken: Any) -> Any:
        def forgetful(self: Router, seqs: tuple[int, ...]) -> None:
            on_taken(self, seqs)
            self.forget(seqs)

        return forgetful

    patch(Router, "_on_accepted", make)
