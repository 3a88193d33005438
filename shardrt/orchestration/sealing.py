"""Payloads that only the app can read: compressed, encrypted, whatever the user's codec does.

A sealed payload is a JSON text: a prefix, then the codec's bytes in base64. It is made where a
value leaves user code (the executor, the pool of activities, a client) and opened where
it enters, so that journals, stores, links and lists hold sealed payloads only. Null stays as it
is, and so does what was not sealed: plain JSON from outside, or from before there was a codec.

Names, ids, tags, times, and what failures say are not payloads.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from shardrt.core.history import NULL
from shardrt.core.work import Completed, Continued, Step
from shardrt.errors import InputInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msgspec import Struct

    from shardrt.core.history import HistoryEvent
    from shardrt.core.work import Outcome, WorkItem

PREFIX = b'"shardrt:sealed:'
_FIELDS = ("input", "result", "data", "output", "custom_status", "state")

S = TypeVar("S", bound="Struct")


class PayloadCodec(Protocol):
    """What a user provides. Both directions, of bytes; errors are exceptions."""

    def encode(self, data: bytes, /) -> bytes:
        """Return what is stored."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """Return what `encode` was given."""
        ...


class Sealer:
    """Seals and opens with one codec."""

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    def seal(self, payload: Raw) -> Raw:
        if payload == NULL:
            return payload
        return Raw(PREFIX + base64.b64encode(self._codec.encode(bytes(payload))) + b'"')

    def open(self, payload: Raw) -> Raw:
        """Return the JSON in a payload.

        Raises:
            InputInvalid: the codec does not take it.
        """
        data = bytes(payload)
        if not data.startswith(PREFIX):
            return payload
        try:
            return Raw(self._codec.decode(base64.b64decode(data[len(PREFIX) : -1])))
        except Exception as error:
            raise InputInvalid(
                f"a sealed payload cannot be opened: {type(error).__name__}: {error}"
            ) from error

    def open_fields(self, value: S) -> S:
        """Return a struct with its payloads opened."""
        opened = {
            name: self.open(getattr(value, name))
            for name in _FIELDS
            if isinstance(getattr(value, name, None), Raw)
        }
        return replace(value, **opened) if opened else value

    def open_item(self, item: WorkItem) -> WorkItem:
        arrivals = tuple(self.open_fields(each) for each in item.arrivals)
        return replace(item, started=self.open_fields(item.started), arrivals=arrivals)

    def open_history(self, events: Iterable[HistoryEvent]) -> list[HistoryEvent]:
        return [self.open_fields(event) for event in events]

    def seal_step(self, step: Step) -> Step:
        status = step.custom_status
        return replace(
            step,
            actions=tuple(self.seal_fields(action) for action in step.actions),
            outcome=self._sealed_outcome(step.outcome),
            custom_status=None if status is None else self.seal(status),
        )

    def _sealed_outcome(self, outcome: Outcome | None) -> Outcome | None:
        if isinstance(outcome, Continued):
            carried = tuple(self.seal_fields(event) for event in outcome.carried)
            return replace(outcome, input=self.seal(outcome.input), carried=carried)
        return self.seal_fields(outcome) if isinstance(outcome, Completed) else outcome

    def seal_fields(self, value: S) -> S:
        """Return a struct with its payloads sealed."""
        sealed = {
            name: self.seal(getattr(value, name))
            for name in _FIELDS
            if isinstance(getattr(value, name, None), Raw)
        }
        return replace(value, **sealed) if sealed else value


def sealer_of(codec: PayloadCodec | None) -> Sealer | None:
    """Return what seals with a codec, if there is one."""
    return None if codec is None else Sealer(codec)
