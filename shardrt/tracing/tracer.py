"""Spans of what has happened, made when it is over.

A span of the engine lasts over commits, crashes and moves, so nobody holds it open: it is known
by its id (see `core.trace_context`) as long as it lasts, and exported as a whole once it has
ended. It goes to the processors of the program's own provider. Its sampler is not asked: whether
a trace is recorded is decided once, where it begins.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from contextvars import Context, copy_context
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer as SdkTracer
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from shardrt.core.trace_context import (
    NOBODY,
    flags_of,
    follow,
    root,
    span_id_of,
    state_of,
    trace_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shardrt.core.effects import RunActivity

_LOW_BITS = 2**64 - 1
"""What the SDK's samplers by ratio look at, too."""


class Happening(NamedTuple):
    """Something at one time within a span. `at` in µs since 1970 UTC, as all times here."""

    name: str
    at: int
    facts: Mapping[str, str | int]


class Span(NamedTuple):
    """A span that is over. Contexts are texts."""

    name: str
    trace: str
    parent: str
    start: int
    end: int
    facts: Mapping[str, str | int | bool]
    error: str = ""
    """What went wrong, if something did."""
    happenings: Sequence[Happening] = ()
    link: str = ""
    """What else it has to do with."""


class Tracer:
    """Begins traces and exports spans, as one process of a host."""

    def __init__(
        self, sdk: SdkTracer, ratio: float, version: str, *, state_operations: bool = False
    ) -> None:
        self.live = copy(sdk)
        """The SDK's own, for spans that are held open by those who are in them."""
        self.live.sampler = ParentBased(TraceIdRatioBased(ratio))
        self._processor = sdk.span_processor
        self._resource = sdk.resource
        name = sdk.instrumentation_info.name
        self._scope = InstrumentationScope(name, version)
        self._bound = round(ratio * (_LOW_BITS + 1))
        self.state_operations = state_operations
        self._outside = _context_with(INVALID_SPAN)
        unsampled = SpanContext(random.getrandbits(127) + 1, 1, is_remote=False)
        self._unsampled = _context_with(NonRecordingSpan(unsampled))

    def begin(self) -> str:
        """Return the context of a new trace; empty if it is not to be recorded."""
        trace_id = random.getrandbits(128) or 1
        return root(trace_id) if trace_id & _LOW_BITS < self._bound else ""

    def around(self, run: RunActivity) -> Context:
        """Return the variables of a context in which an attempt of an activity is to run."""
        if not run.trace:
            # Spans of the user's must not begin traces of their own there.
            return self._unsampled.copy()
        return context_in(follow(run.trace, run.execution_id, run.task_id), self._outside)

    def export(self, span: Span) -> None:
        """Hand a span to the processors."""
        error = span.error
        parent = None if _is_nobody(span.parent) else span_context(span.parent)
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=span_context(span.trace),
                parent=parent,
                resource=self._resource,
                attributes=span.facts,
                events=[Event(name, facts, at * 1000) for name, at, facts in span.happenings],
                links=[] if _is_nobody(span.link) else [Link(span_context(span.link))],
                status=Status(StatusCode.ERROR, error) if error else Status(),
                start_time=span.start * 1000,
                end_time=span.end * 1000,
                instrumentation_scope=self._scope,
            )
        )


def span_context(trace: str) -> SpanContext:
    """Return a context as OpenTelemetry has it."""
    state = state_of(trace)
    return SpanContext(
        trace_id_of(trace),
        span_id_of(trace),
        is_remote=True,
        trace_flags=TraceFlags(flags_of(trace)),
        trace_state=TraceState.from_header([state]) if state else None,
    )


@contextmanager
def within(trace: str) -> Iterator[None]:
    """Make this span the current one meanwhile."""
    token = attach(set_span_in_context(NonRecordingSpan(span_context(trace))))
    try:
        yield
    finally:
        detach(token)


def context_in(trace: str, base: Context | None = None) -> Context:
    """Return a copy of these variables, or of the caller's, in which this span is current."""
    context = copy_context() if base is None else base.copy()
    span = NonRecordingSpan(span_context(trace))
    context.run(lambda: attach(set_span_in_context(span)))
    return context


def _context_with(span: NonRecordingSpan) -> Context:
    context = copy_context()
    context.run(lambda: attach(set_span_in_context(span)))
    return context


def _is_nobody(trace: str) -> bool:
    return not trace or trace[36:52] == NOBODY
