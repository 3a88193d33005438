"""A partition that tells what happens to traced instances, as spans.

It looks on at what is written to the journal, never at a replay, and what it saw is exported
once the record is durable: an instance has one start and one end wherever it moves. The spans of
a host that is killed before it could export them are lost, as those of any program.

What is under way of an instance is remembered here only to know when it began. It comes from the
instance when that is loaded; the attempts that another host has made are not in it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from msgspec.structs import replace

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.effects import Observed
from shardrt.core.ids import derived_id
from shardrt.core.partition import NO_HISTORIES, Partition, Sealed
from shardrt.core.state import START_TIMER, Instance
from shardrt.core.trace_context import NOBODY, follow, is_sampled
from shardrt.core.work import Continued
from shardrt.orchestration.schedules import SCHEDULE
from shardrt.tracing.tracer import Happening, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Context

    from msgspec import Raw

    from shardrt.core.effects import RunActivity
    from shardrt.core.history import Failure
    from shardrt.core.state import PartitionState, Resident
    from shardrt.host.attempts import Attempt
    from shardrt.host.partition_host import PartitionHost
    from shardrt.tracing.tracer import Tracer

CANCELED = "canceled"


class Call:
    """What an instance has asked for and not got so far."""

    __slots__ = ("attempt", "began", "facts", "happenings")

    def __init__(self, began: int, facts: dict[str, str | int], attempt: int = 1) -> None:
        self.began = began
        self.facts = facts
        self.attempt = attempt
        self.happenings: list[Happening] = []


class Traced:
    """An open instance of a sampled trace."""

    __slots__ = ("calls", "execution_id", "timer_was_set")

    def __init__(self, instance: Instance) -> None:
        self.execution_id = instance.execution_id
        """That of the calls."""
        self.calls: dict[int, Call] = {}
        self.timer_was_set = any(each != START_TIMER for each in instance.timers) or any(
            isinstance(each, h.TimerCreated) for each in instance.tail
        )
        for task_id, pending in instance.pending.items():
            facts = _activity_facts(pending.name, pending.input)
            self.calls[task_id] = Call(pending.first_at, facts, pending.attempt)
        for task_id, child in instance.children.items():
            facts = _child_facts(child.name, child.instance_id, child.input)
            self.calls[task_id] = Call(child.first_at, facts, child.attempt)
        for task_id, entity_id in instance.calls.items():
            self.calls[task_id] = Call(instance.updated_at, {"entity.id": entity_id})


class ObservedPartition(Partition):
    """The same partition, and somebody who looks on."""

    def __init__(self, state: PartitionState, observer: Observer) -> None:
        super().__init__(state)
        self.observer = observer
        observer.instances = self.instances

    def take(self, epoch: int, now: int) -> None:
        super().take(epoch, now)
        self.observer.taken()

    def admit(self, resident: Resident) -> None:
        super().admit(resident)
        if isinstance(resident, Instance):
            self.observer.follow(resident)

    def evict(self, instance_id: str) -> None:
        super().evict(instance_id)
        self.observer.forget(instance_id)

    def receive(
        self,
        source: int,
        first: int,
        messages: Sequence[m.Message],
        now: int,
        draw: float,
        histories: Mapping[str, Sequence[h.HistoryEvent]] = NO_HISTORIES,
    ) -> int | None:
        messages = [self.observer.begun(each) for each in messages]
        return super().receive(source, first, messages, now, draw, histories)

    def seal(self) -> Sealed:
        sealed = super().seal()
        tell = self.observer.sealed()
        if tell is not None:
            sealed.effects.append(Observed(tell))
        return sealed

    def _write(self, entry: e.Entry) -> None:
        super()._write(entry)
        self.observer.look(entry)


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
        if attempt.run.trace:
            core.observer.began(attempt.run)
        return self._tracer.around(attempt.run)


class Observer:
    """Looks on at one partition."""

    def __init__(self, tracer: Tracer, now: Callable[[], int], facts: dict[str, str | int]) -> None:
        self.instances: dict[str, Instance] = {}
        """Those of the partition."""
        self._tracer = tracer
        self._now = now
        self._facts = facts
        """Of each span: host and shard."""
        self._traced: dict[str, Traced] = {}
        self._spans: list[Span] = []
        """Of what is not in a record yet."""

    # -- what comes and goes -------------------------------------------------------------------

    def taken(self) -> None:
        """Look for what is under way in a partition that was recovered."""
        self._traced.clear()
        for instance in self.instances.values():
            self.follow(instance)

    def follow(self, instance: Instance) -> None:
        """Look at an instance from now on, if it is to be traced."""
        if is_sampled(instance.trace) and not instance.is_final:
            self._traced[instance.instance_id] = Traced(instance)

    def forget(self, instance_id: str) -> None:
        self._traced.pop(instance_id, None)

    def begun(self, message: m.Message) -> m.Message:
        """Let what a schedule starts begin a trace: the schedule itself has no end."""
        if type(message) is m.StartChild and message.parent.name == SCHEDULE:
            return replace(message, trace=self._tracer.begin())
        return message

    def sealed(self) -> Callable[[], None] | None:
        """Return what is to be done once what was written so far is durable, if anything."""
        spans, self._spans = self._spans, []
        return partial(self._export, spans) if spans else None

    def _export(self, spans: list[Span]) -> None:
        now = self._now()
        for span in spans:
            # What lasts until it is durable has no end so far.
            self._tracer.export(span if span.end else span._replace(end=max(now, span.start)))

    def began(self, run: RunActivity) -> None:
        """Note that an attempt of an activity starts to run now."""
        call = self._call_of(run.instance_id, run.execution_id, run.task_id)
        if call is not None:
            call.attempt = run.attempt
            call.happenings.append(Happening("attempt", self._now(), {"attempt": run.attempt}))

    # -- what is written -----------------------------------------------------------------------

    def look(self, entry: e.Entry) -> None:
        """See an entry that was just written and applied."""
        look = self._LOOKS.get(type(entry))
        if look is not None:
            look(self, entry)

    def _created(self, entry: e.Created) -> None:
        if is_sampled(entry.trace):
            self._started(self.instances[entry.instance_id], entry.trace, entry.at)

    def _started(self, instance: Instance, parent: str, at: int) -> None:
        self._traced[instance.instance_id] = Traced(instance)
        facts: dict[str, str | int | bool] = {**self._facts_of(instance)}
        self._spans.append(Span("orchestration.start", instance.trace, parent, at, 0, facts))

    def _ended(self, instance: Instance, traced: Traced) -> None:
        assert instance.completed_at is not None
        del self._traced[instance.instance_id]
        self._give_up(instance, traced, instance.completed_at)
        facts = self._facts_of(instance) | {
            "orchestration.status": instance.status.value,
            "orchestration.timer_was_set": traced.timer_was_set,
            "orchestration.state_deleted": False,
        }
        error = "" if instance.status is h.Status.COMPLETED else instance.status.value
        if instance.failure is not None:
            error = facts["error.type"] = instance.failure.type
        self._spans.append(
            Span(
                "orchestration.complete",
                follow(instance.trace, "complete", instance.execution_id),
                instance.trace,
                instance.created_at,
                instance.completed_at,
                facts,
                error,
            )
        )

    def _stepped(self, entry: e.Stepped) -> None:
        traced = self._traced.get(entry.instance_id)
        if traced is None:
            return
        instance = self.instances[entry.instance_id]
        for action in entry.actions:
            self._asked(instance, traced, action, entry.at)
        if isinstance(entry.outcome, Continued):
            self._give_up(instance, traced, entry.at)
            traced.execution_id = instance.execution_id
        elif instance.is_final:
            self._ended(instance, traced)

    def _asked(self, instance: Instance, traced: Traced, action: h.Action, at: int) -> None:
        match action:
            case h.TaskScheduled():
                facts = _activity_facts(action.name, action.input)
                traced.calls[action.task_id] = Call(at, facts)
            case h.SubOrchestrationInstanceCreated():
                facts = _child_facts(action.name, action.instance_id, action.input)
                traced.calls[action.task_id] = Call(at, facts)
            case h.EntityOperationCalled():
                facts = _activity_facts(action.name, action.input)
                facts["entity.id"] = action.instance_id
                traced.calls[action.task_id] = Call(at, facts)
            case h.TaskCanceled():
                self._close(instance, traced, action.task_id, at, CANCELED)
            case h.TimerCreated():
                traced.timer_was_set = True
            case _:
                pass

    def _arrived(self, entry: e.Arrived) -> None:
        event = entry.event
        assert isinstance(event, (h.TaskCompleted, h.TaskFailed))
        failure = event.failure if isinstance(event, h.TaskFailed) else None
        self._answered(entry.instance_id, event.task_id, event.at, failure)

    def _answered(self, instance_id: str, task_id: int, at: int, failure: Failure | None) -> None:
        traced = self._traced.get(instance_id)
        if traced is not None:
            error = "" if failure is None else failure.type
            self._close(self.instances[instance_id], traced, task_id, at, error)

    def _retried(self, entry: e.Retried) -> None:
        traced = self._traced.get(entry.instance_id)
        if traced is not None and (call := traced.calls.get(entry.task_id)) is not None:
            call.attempt += 1
            call.happenings.append(_retry(entry.at, entry.failure, entry.retry_at))

    def _fired(self, entry: e.Fired) -> None:
        traced = self._traced.get(entry.instance_id)
        if traced is None:
            return
        instance = self.instances[entry.instance_id]
        for task_id in entry.task_ids:
            gone = task_id not in instance.pending and task_id not in instance.children
            if gone:  # it was given all the time there was
                self._close(instance, traced, task_id, entry.at, "TimeoutError")

    def _raised(self, entry: e.Raised) -> None:
        event = entry.event
        self._event(entry.instance_id, event.name, event.data, event.at, entry.trace)

    def _event(self, instance_id: str, name: str, data: Raw, at: int, sender: str) -> None:
        traced = self._traced.get(instance_id)
        if traced is None:
            return
        instance = self.instances[instance_id]
        facts = self._facts_of(instance) | {
            "event.name": name,
            "payload.type": json_type(data),
            "event.queue_depth": sum(isinstance(each, h.EventRaised) for each in instance.inbox),
        }
        trace = follow(instance.trace, "event", at, name, instance.history_length, len(self._spans))
        span = Span("orchestration.event.receive", trace, instance.trace, at, 0, facts, link=sender)
        self._spans.append(span)

    def _terminated(self, entry: e.Terminated) -> None:
        self._ended_if_so(entry.instance_id)

    def _ended_if_so(self, instance_id: str) -> None:
        traced = self._traced.get(instance_id)
        if traced is not None and self.instances[instance_id].is_final:
            self._ended(self.instances[instance_id], traced)

    def _rewound(self, entry: e.Rewound) -> None:
        self.follow(self.instances[entry.instance_id])

    def _received(self, entry: e.Received) -> None:
        message, at = entry.message, entry.at
        match message:
            case m.StartChild() | m.RewindChild():
                if is_sampled(message.trace):
                    self._child_started(message, entry)
            case m.ChildEnded():
                self._child_answered(message, entry)
            case m.EntityAnswered(instance_id, execution_id, task_id):
                if self._call_of(instance_id, execution_id, task_id) is not None:
                    self._answered(instance_id, task_id, at, message.failure)
            case m.DeliverEvent(instance_id, name, data):
                self._event(instance_id, name, data, at, message.trace)
            case m.TerminateChild(instance_id):
                self._ended_if_so(instance_id)
            case _:
                pass

    def _child_started(self, message: m.StartChild | m.RewindChild, entry: e.Received) -> None:
        parent = message.parent
        instance = self.instances.get(message.instance_id)
        # There may have been one of that id, which was open.
        expected = derived_id(parent.execution_id, entry.source, entry.seq)
        if instance is not None and instance.execution_id == expected:
            call = message.trace
            if call[36:52] != NOBODY:
                call = follow(call, parent.execution_id, parent.task_id)
            self._started(instance, call, entry.at)

    def _child_answered(self, message: m.ChildEnded, entry: e.Received) -> None:
        ids = (message.instance_id, message.execution_id, message.task_id)
        call = self._call_of(*ids)
        if call is None:
            return
        failure = message.failure
        if message.status is not h.Status.COMPLETED and failure is None:
            failure = h.Failure(type="SubOrchestrationFailed")
        if entry.retry_at is not None and failure is not None:
            call.attempt += 1
            call.happenings.append(_retry(entry.at, failure, entry.retry_at))
        elif message.task_id not in self.instances[message.instance_id].children:
            self._answered(message.instance_id, message.task_id, entry.at, failure)

    # -- calls ---------------------------------------------------------------------------------

    def _call_of(self, instance_id: str, execution_id: str, task_id: int) -> Call | None:
        traced = self._traced.get(instance_id)
        if traced is None or traced.execution_id != execution_id:
            return None
        return traced.calls.get(task_id)

    def _close(
        self, instance: Instance, traced: Traced, task_id: int, at: int, error: str = ""
    ) -> None:
        call = traced.calls.pop(task_id, None)
        if call is None:
            return
        facts: dict[str, str | int | bool] = {
            **self._facts_of(instance),
            **call.facts,
            "attempt": call.attempt,
        }
        if error:
            facts["error.type"] = error
        trace = follow(instance.trace, traced.execution_id, task_id)
        self._spans.append(
            Span(
                "orchestration.call",
                trace,
                instance.trace,
                call.began,
                max(at, call.began),
                facts,
                error,
                call.happenings,
            )
        )

    def _give_up(self, instance: Instance, traced: Traced, at: int) -> None:
        for task_id in list(traced.calls):
            self._close(instance, traced, task_id, at, CANCELED)

    def _facts_of(self, instance: Instance) -> dict[str, str | int | bool]:
        facts: dict[str, str | int | bool] = {
            "function.name": instance.name,
            "instance.id": instance.instance_id,
            **self._facts,
        }
        if instance.parent is not None:
            facts["parent.instance.id"] = instance.parent.instance_id
        return facts

    _LOOKS: ClassVar[dict[type, Any]] = {
        e.Created: _created,
        e.Arrived: _arrived,
        e.Retried: _retried,
        e.Fired: _fired,
        e.Raised: _raised,
        e.Stepped: _stepped,
        e.Received: _received,
        e.Terminated: _terminated,
        e.Rewound: _rewound,
    }


def json_type(payload: Raw) -> str:
    """Return what a JSON text is, by how it begins."""
    return _TYPES.get(bytes(memoryview(payload)[:1]), "number")


_TYPES = {
    b"{": "object",
    b"[": "array",
    b'"': "string",
    b"t": "boolean",
    b"f": "boolean",
    b"n": "null",
}


def _activity_facts(name: str, payload: Raw) -> dict[str, str | int]:
    return {"function.name": name, "input.type": json_type(payload)}


def _child_facts(name: str, instance_id: str, payload: Raw) -> dict[str, str | int]:
    facts: dict[str, str | int] = {"child.instance.id": instance_id}
    # The name is forgotten once a child that is not to be started again was started.
    return _activity_facts(name, payload) | facts if name else facts


def _retry(at: int, failure: Failure, retry_at: int) -> Happening:
    delay_ms = max(0, retry_at - at) // 1000
    return Happening("retry", at, {"error.type": failure.type, "delay_ms": delay_ms})
