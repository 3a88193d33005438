"""Tells what happens to the traced instances of a partition, as spans.

What is under way of an instance is remembered here only to know when it began. It comes from the
instance when that is loaded; the attempts that another host has made are not in it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.entries import instance_of
from shardrt.core.ids import derived_id
from shardrt.core.trace_context import follow, is_nobody, is_sampled
from shardrt.core.work import Continued
from shardrt.host.traced import Call, Traced, activity_facts, child_facts, json_type
from shardrt.orchestration.schedules import SCHEDULE
from shardrt.tracing.tracer import Happening, Span, following, span_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw
    from opentelemetry.trace import SpanContext

    from shardrt.core.effects import RunActivity
    from shardrt.core.history import Failure
    from shardrt.core.state import Instance
    from shardrt.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

CANCELED = "canceled"


class Observer:
    """Looks on at one partition."""

    def __init__(self, tracer: Tracer, now: Callable[[], int], facts: dict[str, str | int]) -> None:
        self.instances: dict[str, Instance] = {}
        """Those of the partition."""
        self._tracer = tracer
        self._now = now
        self._facts = facts
        """Of each span: host and shard."""
        self.traced: dict[str, Traced] = {}
        """Open instances of sampled traces, of those in memory."""
        self.spans: list[Span] = []
        """Of what is not in a record yet."""
        self.changed: dict[int, Traced] = {}
        """Since the last seal; noted only if commits are to be told of."""

    # -- what comes and goes -------------------------------------------------------------------

    def taken(self) -> None:
        """Look for what is under way in a partition that was recovered."""
        self.traced.clear()
        for instance in self.instances.values():
            self.follow(instance)

    def follow(self, instance: Instance) -> None:
        """Look at an instance from now on, if it is to be traced."""
        if is_sampled(instance.trace) and not instance.is_final:
            self.traced[instance.instance_id] = Traced(instance, self._facts)

    def forget(self, instance_id: str) -> None:
        self.traced.pop(instance_id, None)

    def begun(self, message: m.Message) -> m.Message:
        """Let what a schedule starts begin a trace: the schedule itself has no end."""
        if type(message) is m.StartChild and message.parent.name == SCHEDULE:
            return replace(message, trace=self._tracer.begin())
        return message

    def sealed(self) -> Callable[[], None]:
        """Return what is to be done once what was written so far is durable."""
        for traced in self.changed.values():
            trace = follow(traced.trace, "save", traced.saves)
            traced.saves += 1
            context = following(traced.span, trace)
            self.spans.append(
                Span("state.save", context, traced.span, self._now(), 0, traced.facts)
            )
        self.changed.clear()
        spans, self.spans = self.spans, []
        return partial(self._export, spans)

    def _export(self, spans: list[Span]) -> None:
        now = self._now()
        try:
            for span in spans:
                # What lasts until it is durable has no end so far.
                self._tracer.export(span if span.end else span._replace(end=max(now, span.start)))
        except Exception as error:  # noqa: BLE001 - the program's; who only looks on stops nobody
            logger.warning("a span processor has failed, and spans are lost: %r", error)

    def began(self, run: RunActivity) -> SpanContext:
        """Note that an attempt of an activity starts to run now; return the span of its call."""
        call = self._call_of(run.instance_id, run.execution_id, run.task_id)
        if call is None:  # not sampled, or not waited for any more
            return span_context(follow(run.trace, run.execution_id, run.task_id))
        call.attempt = run.attempt
        call.happenings.append(Happening("attempt", self._now(), {"attempt": run.attempt}))
        return call.span

    # -- what is written -----------------------------------------------------------------------

    def look(self, entry: e.Entry) -> None:
        """See an entry that was just written and applied."""
        if self._tracer.state_operations:
            self._note_change(instance_of(entry))  # it may end by it
        self.LOOKS[type(entry)](self, entry)
        if self._tracer.state_operations:
            self._note_change(instance_of(entry))  # it may begin by it

    def _note_change(self, instance_id: str | None) -> None:
        traced = None if instance_id is None else self.traced.get(instance_id)
        if traced is not None:
            self.changed[id(traced)] = traced

    def _created(self, entry: e.Created) -> None:
        if is_sampled(entry.trace):
            self._started(self.instances[entry.instance_id], entry.trace, entry.at)

    def _started(self, instance: Instance, parent: str, at: int) -> None:
        traced = self.traced[instance.instance_id] = Traced(instance, self._facts)
        above = None if is_nobody(parent) else span_context(parent)
        span = Span("orchestration.start", traced.span, above, at, 0, traced.facts)
        self.spans.append(span)

    def _ended(self, instance: Instance, traced: Traced) -> None:
        assert instance.completed_at is not None
        del self.traced[instance.instance_id]
        self._give_up(traced, instance.completed_at)
        facts: dict[str, str | int] = traced.facts | {
            "orchestration.status": instance.status.value,
            "orchestration.timer_was_set": traced.timer_was_set,
            "orchestration.state_deleted": False,
        }
        error = "" if instance.status is h.Status.COMPLETED else instance.status.value
        if instance.failure is not None:
            error = facts["error.type"] = instance.failure.type
        trace = follow(instance.trace, "complete", instance.execution_id)
        self.spans.append(
            Span(
                "orchestration.complete",
                following(traced.span, trace),
                traced.span,
                instance.created_at,
                instance.completed_at,
                facts,
                error,
            )
        )

    def _stepped(self, entry: e.Stepped) -> None:
        traced = self.traced.get(entry.instance_id)
        if traced is None:
            return
        instance = self.instances[entry.instance_id]
        for action in entry.actions:
            self._asked(traced, action, entry.at)
        if isinstance(entry.outcome, Continued):
            self._give_up(traced, entry.at)
            traced.execution_id = instance.execution_id
        elif instance.is_final:
            self._ended(instance, traced)

    def _asked(self, traced: Traced, action: h.Action, at: int) -> None:
        match action:
            case h.TaskScheduled():
                facts = activity_facts(action.name, action.input)
                traced.call(action.task_id, at, facts)
            case h.SubOrchestrationInstanceCreated():
                facts = child_facts(action.name, action.instance_id, action.input)
                traced.call(action.task_id, at, facts)
            case h.EntityOperationCalled():
                facts = activity_facts(action.name, action.input)
                facts["entity.id"] = action.instance_id
                traced.call(action.task_id, at, facts)
            case h.TaskCanceled():
                self._close(traced, action.task_id, at, CANCELED)
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
        traced = self.traced.get(instance_id)
        if traced is not None:
            error = "" if failure is None else failure.type
            self._close(traced, task_id, at, error)

    def _retried(self, entry: e.Retried) -> None:
        traced = self.traced.get(entry.instance_id)
        if traced is not None and (call := traced.calls.get(entry.task_id)) is not None:
            call.attempt += 1
            call.happenings.append(_retry(entry.at, entry.failure, entry.retry_at))

    def _fired(self, entry: e.Fired) -> None:
        traced = self.traced.get(entry.instance_id)
        if traced is None:
            return
        instance = self.instances[entry.instance_id]
        for task_id in entry.task_ids:
            gone = task_id not in instance.pending and task_id not in instance.children
            if gone:  # it was given all the time there was
                self._close(traced, task_id, entry.at, "TimeoutError")

    def _raised(self, entry: e.Raised) -> None:
        event = entry.event
        self._event(entry.instance_id, event.name, event.data, event.at, entry.trace)

    def _event(self, instance_id: str, name: str, data: Raw, at: int, sender: str) -> None:
        traced = self.traced.get(instance_id)
        if traced is None:
            return
        instance = self.instances[instance_id]
        facts: dict[str, str | int] = traced.facts | {
            "event.name": name,
            "payload.type": json_type(data),
            "event.queue_depth": sum(isinstance(each, h.EventRaised) for each in instance.inbox),
        }
        trace = follow(instance.trace, "event", at, name, instance.history_length, len(self.spans))
        link = None if is_nobody(sender) else span_context(sender)
        span = following(traced.span, trace)
        self.spans.append(
            Span("orchestration.event.receive", span, traced.span, at, 0, facts, link=link)
        )

    def _terminated(self, entry: e.Terminated | e.CancelRequested) -> None:
        self._ended_if_so(entry.instance_id)

    def _ended_if_so(self, instance_id: str) -> None:
        traced = self.traced.get(instance_id)
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
            case m.TerminateChild(instance_id) | m.CancelChild(instance_id):
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
            if not is_nobody(call):
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
        traced = self.traced.get(instance_id)
        if traced is None or traced.execution_id != execution_id:
            return None
        return traced.calls.get(task_id)

    def _close(self, traced: Traced, task_id: int, at: int, error: str = "") -> None:
        call = traced.calls.pop(task_id, None)
        if call is None:
            return
        facts = traced.facts | call.facts
        facts["attempt"] = call.attempt
        if error:
            facts["error.type"] = error
        end = max(at, call.began)
        self.spans.append(
            Span(
                "orchestration.call",
                call.span,
                traced.span,
                call.began,
                end,
                facts,
                error,
                call.happenings,
            )
        )

    def _give_up(self, traced: Traced, at: int) -> None:
        for task_id in list(traced.calls):
            self._close(traced, task_id, at, CANCELED)

    LOOKS: ClassVar[dict[type, Any]] = {
        e.Created: _created,
        e.Arrived: _arrived,
        e.Retried: _retried,
        e.Fired: _fired,
        e.Raised: _raised,
        e.Stepped: _stepped,
        e.Received: _received,
        e.Terminated: _terminated,
        e.CancelRequested: _terminated,
        e.Rewound: _rewound,
    }


def _retry(at: int, failure: Failure, retry_at: int) -> Happening:
    delay_ms = max(0, retry_at - at) // 1000
    return Happening("retry", at, {"error.type": failure.type, "delay_ms": delay_ms})
