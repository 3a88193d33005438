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
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
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
    flags_of,
    root,
    span_id_of,
    state_of,
    trace_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shardrt.tracing.sampler import Sampler


UNSET = Status()


class Happening(NamedTuple):
    """Something at one time within a span. `at` in µs since 1970 UTC, as all times here."""

    name: str
    at: int
    facts: Mapping[str, str | int]


class Span(NamedTuple):
    """A span that is over."""

    name: str
    context: SpanContext
    parent: SpanContext | None
    start: int
    end: int
    facts: Mapping[str, str | int]
    error: str = ""
    """What went wrong, if something did."""
    happenings: Sequence[Happening] = ()
    link: SpanContext | None = None
    """What else it has to do with."""


class Tracer:
    """Begins traces and exports spans, as one process of a host."""

    def __init__(
        self, sdk: SdkTracer, sampler: Sampler, version: str, *, state_operations: bool = False
    ) -> None:
        self.live = copy(sdk)
        """The SDK's own, for spans that are held open by those who are in them. Whether a trace
        is to begin was drawn before it is used."""
        self.live.sampler = ParentBased(ALWAYS_ON)
        self._processor = sdk.span_processor
        self._resource = sdk.resource
        name = sdk.instrumentation_info.name
        self._scope = InstrumentationScope(name, version)
        self._sampler = sampler
        self.state_operations = state_operations
        self._base = copy_context()
        unsampled = SpanContext(random.getrandbits(127) + 1, 1, is_remote=False)
        self.outside = _context_with(NonRecordingSpan(unsampled), self._base).copy
        """Returns the variables of a context for an activity that is not traced: spans of the
        user's must not begin traces of their own there."""

    def begin(self) -> str:
        """Return the context of a new trace; empty if it is not to be recorded."""
        trace_id = random.getrandbits(128) or 1
        return root(trace_id) if self._sampler.takes(trace_id) else ""

    def within(self, span: SpanContext) -> Context:
        """Return the variables of a context for an activity that is in this span."""
        return _context_with(NonRecordingSpan(span), self._base)

    def export(self, span: Span) -> None:
        """Hand a span to the processors."""
        error = span.error
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=span.context,
                parent=span.parent,
                resource=self._resource,
                attributes=span.facts,
                events=[Event(name, facts, at * 1000) for name, at, facts in span.happenings],
                links=[] if span.link is None else [Link(span.link)],
                status=Status(StatusCode.ERROR, error) if error else UNSET,
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


def following(span: SpanContext, trace: str) -> SpanContext:
    """Return a context as `span_context` does, of the same trace as another."""
    return SpanContext(
        span.trace_id,
        span_id_of(trace),
        is_remote=False,
        trace_flags=span.trace_flags,
        trace_state=span.trace_state,
    )


def context_in(trace: str) -> Context:
    """Return a copy of the caller's variables in which this span is current."""
    return _context_with(NonRecordingSpan(span_context(trace)), copy_context())


def _context_with(span: NonRecordingSpan, base: Context) -> Context:
    context = base.copy()
    context.run(_enter, span)
    return context


def _enter(span: NonRecordingSpan) -> None:
    attach(set_span_in_context(span))
