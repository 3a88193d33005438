"""An instance of a sampled trace, and what is under way of it, as spans will tell it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from shardrt.core import history as h
from shardrt.core.state import START_TIMER, Instance
from shardrt.core.trace_context import follow
from shardrt.tracing.tracer import Happening, following, span_context

if TYPE_CHECKING:
    from msgspec import Raw
    from opentelemetry.trace import SpanContext

HAPPENINGS_MAX = 128
"""The last so many are told of a call; as many as the SDK's own spans hold."""


class Call:
    """What an instance has asked for and not got so far."""

    __slots__ = ("attempt", "began", "facts", "happenings", "span")

    def __init__(
        self, span: SpanContext, began: int, facts: dict[str, str | int], attempt: int = 1
    ) -> None:
        self.span = span
        self.began = began
        self.facts = facts
        self.attempt = attempt
        self.happenings = deque[Happening](maxlen=HAPPENINGS_MAX)


class Traced:
    """An open instance of a sampled trace."""

    __slots__ = ("calls", "execution_id", "facts", "saves", "span", "timer_was_set", "trace")

    def __init__(self, instance: Instance, facts: dict[str, str | int]) -> None:
        self.trace = instance.trace
        self.span = span_context(instance.trace)
        self.facts = {
            "function.name": instance.name,
            "instance.id": instance.instance_id,
            **facts,
        }
        if instance.parent is not None:
            self.facts["parent.instance.id"] = instance.parent.instance_id
        self.execution_id = instance.execution_id
        """That of the calls."""
        self.calls: dict[int, Call] = {}
        self.saves = instance.history_length << 8
        """Numbers commits; other than those that another host has counted."""
        self.timer_was_set = any(each != START_TIMER for each in instance.timers) or any(
            isinstance(each, h.TimerCreated) for each in instance.tail
        )
        for task_id, pending in instance.pending.items():
            facts = activity_facts(pending.name, pending.input)
            self.call(task_id, pending.first_at, facts, pending.attempt)
        for task_id, child in instance.children.items():
            facts = child_facts(child.name, child.instance_id, child.input)
            self.call(task_id, child.first_at, facts, child.attempt)
        for task_id, entity_id in instance.calls.items():
            self.call(task_id, instance.updated_at, {"entity.id": entity_id})

    def call(self, task_id: int, at: int, facts: dict[str, str | int], attempt: int = 1) -> None:
        """Note what the code has asked for."""
        span = following(self.span, follow(self.trace, self.execution_id, task_id))
        self.calls[task_id] = Call(span, at, facts, attempt)


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


def activity_facts(name: str, payload: Raw) -> dict[str, str | int]:
    return {"function.name": name, "input.type": json_type(payload)}


def child_facts(name: str, instance_id: str, payload: Raw) -> dict[str, str | int]:
    facts: dict[str, str | int] = {"child.instance.id": instance_id}
    # The name is forgotten once a child that is not to be started again was started.
    return activity_facts(name, payload) | facts if name else facts
