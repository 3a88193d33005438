"""Spans in memory, and what they say about each other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shardrt.config import Settings
from shardrt.config.settings import TracingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = Settings(tracing=TracingSettings(sample_ratio=1.0, traces_per_s_max=0))


class Recording:
    """A provider of tracers, and the spans that it was given."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self._memory = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._memory.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, **facts: object) -> ReadableSpan:
        """Return the only span of that name, and with these attributes."""
        (found,) = [
            span
            for span in self.named(name)
            if all((span.attributes or {}).get(f.replace("_", ".")) == facts[f] for f in facts)
        ]
        return found

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(span.name for span in self.spans))

    def assert_one_tree(self) -> None:
        """Every span but one has a parent that was recorded, in the same trace; ids are unique."""
        ids = [id_of(span) for span in self.spans]
        assert len(set(ids)) == len(ids)
        assert len({span.context.trace_id for span in self.spans if span.context}) == 1
        parents = [parent_of(span) for span in self.spans]
        assert parents.count(None) == 1
        assert {each for each in parents if each is not None} <= set(ids)


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else int(span.parent.span_id)
