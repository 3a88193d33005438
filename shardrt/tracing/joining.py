"""The caller's current span, if the program is traced. Costs next to nothing if it is not."""

from __future__ import annotations

import sys
from typing import Any


def current_trace() -> str:
    """Return the context of the span that the caller is in, for `core.trace_context`; or empty."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ""
    span = api.get_current_span()
    if span is api.INVALID_SPAN:  # most often, also if the program is traced
        return ""
    context = span.get_span_context()
    return text_of(context) if context.is_valid else ""


def text_of(context: Any) -> str:
    """Return a `SpanContext` as text."""
    text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header() if context.trace_state else ""
    return f"{text} {state}" if state else text
