"""A partition that somebody looks on at who tells what happens to traced instances.

What is looked at is what is written to the journal, never a replay, and what was seen is exported
once the record is durable: an instance has one start and one end wherever it moves. The spans of
a host that is killed before it could export them are lost, as those of any program.

Who is not traced pays next to nothing: an entry is looked at if it is of an instance that is
traced, or begins one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from shardrt.core import entries as e
from shardrt.core.effects import Observed
from shardrt.core.partition import NO_HISTORIES, Partition, Sealed
from shardrt.core.state import Instance
from shardrt.host.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Context

    from opentelemetry.trace import SpanContext

    from shardrt.core import history as h, messages as m
    from shardrt.core.effects import RunActivity
    from shardrt.core.state import PartitionState, Resident
    from shardrt.host.attempts import Attempt
    from shardrt.host.partition_host import PartitionHost
    from shardrt.tracing.tracer import Tracer


class ObservedPartition(Partition):
    """The same partition, and somebody who looks on."""

    def __init__(self, state: PartitionState, observer: Observer) -> None:
        super().__init__(state)
        self._observer = observer
        self._is_taken = False
        self.traced = observer.traced
        observer.instances = self.instances

    def take(self, epoch: int, now: int) -> None:
        super().take(epoch, now)
        self._is_taken = True  # what was applied so far was replayed
        self._observer.taken()
        self._look_if_needed()

    def admit(self, resident: Resident) -> None:
        super().admit(resident)
        if self._is_taken and isinstance(resident, Instance):
            self._observer.follow(resident)
            self._look_if_needed()

    def evict(self, instance_id: str) -> None:
        super().evict(instance_id)
        self._observer.forget(instance_id)

    def receive(
        self,
        source: int,
        first: int,
        messages: Sequence[m.Message],
        now: int,
        draw: float,
        histories: Mapping[str, Sequence[h.HistoryEvent]] = NO_HISTORIES,
    ) -> int | None:
        messages = [self._observer.begun(each) for each in messages]
        return super().receive(source, first, messages, now, draw, histories)

    def seal(self) -> Sealed:
        sealed = super().seal()
        observer = self._observer
        if observer.spans or observer.changed:
            sealed.effects.append(Observed(observer.sealed()))
        return sealed

    def began(self, run: RunActivity) -> SpanContext:
        """Note that an attempt of a traced instance runs now; return the span it is in."""
        return self._observer.began(run)

    def looked_at(self, entry: e.Entry) -> None:
        """Have an entry looked at that was just written and applied."""
        self._observer.look(entry)
        self._look_if_needed()

    def _look_if_needed(self) -> None:
        """Look at what may begin something, and at the rest only while something is traced.

        What is not looked at is applied by the very functions of `Partition`. So where nothing is
        traced, instances pay for nothing but their start.
        """
        # NB: not by `vars`, which would make every other attribute slower.
        self._ENTRIES = WATCHING if self._observer.traced else IDLE  # type: ignore[misc]


class Watch:
    """Looks on at all partitions of a shard. `facts` are of each span: host and shard."""

    def __init__(self, tracer: Tracer, now: Callable[[], int], facts: dict[str, str | int]) -> None:
        self._tracer = tracer
        self._now = now
        self._facts = facts

    def partition(self, state: PartitionState) -> ObservedPartition:
        return ObservedPartition(state, Observer(self._tracer, self._now, self._facts))

    def around(self, attempt: Attempt) -> Context:
        """Note that an attempt runs now; return the variables of the context to run it in."""
        core = cast("PartitionHost", attempt.asker).core
        assert isinstance(core, ObservedPartition)
        return self._tracer.within(core.began(attempt.run))


_APPLIED = ObservedPartition._ENTRIES  # noqa: SLF001 - its own


def _created(partition: ObservedPartition, entry: e.Created) -> None:
    _APPLIED[e.Created](partition, entry)
    if entry.trace:
        partition.looked_at(entry)


def _received(partition: ObservedPartition, entry: e.Received) -> None:
    _APPLIED[e.Received](partition, entry)
    message = entry.message
    if getattr(message, "trace", "") or message.instance_id in partition.traced:
        partition.looked_at(entry)


def _rewound(partition: ObservedPartition, entry: e.Rewound) -> None:
    _APPLIED[e.Rewound](partition, entry)
    partition.looked_at(entry)


def _taken_up(partition: ObservedPartition, entry: e.TakenUp) -> None:
    """See the message itself, which is put aside no more afterwards."""
    first = partition.state.aside[entry.instance_id][0]
    _APPLIED[e.TakenUp](partition, entry)
    message = e.Received(entry.at, first.source, first.seq, first.message, entry.retry_at)
    partition.looked_at(message)


def _of_traced(apply: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def look(partition: ObservedPartition, entry: Any) -> None:
        apply(partition, entry)
        if entry.instance_id in partition.traced:
            partition.looked_at(entry)

    return look


_BEGINNINGS = {
    e.Created: _created,
    e.Received: _received,
    e.Rewound: _rewound,
    e.TakenUp: _taken_up,
}
IDLE = _APPLIED | _BEGINNINGS
WATCHING = _APPLIED | {kind: _of_traced(_APPLIED[kind]) for kind in Observer.LOOKS} | _BEGINNINGS
