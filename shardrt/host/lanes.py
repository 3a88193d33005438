"""Sending what the outbox holds, and sending it again until it is acknowledged.

Go-back-N per destination: one ordered stream, repeated from the first message that is not
acknowledged. Only what is durable leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.links.messages import Deliver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.core.history import Failure
    from shardrt.core.messages import Message
    from shardrt.core.state import PartitionState
    from shardrt.host.clock import Clock
    from shardrt.host.ports import Network

RESEND_S = 1.0
"""Silence after which a lane is sent again; doubles with each repetition, up to 30 s."""
RESEND_S_MAX = 30.0
BATCH_MESSAGES_MAX = 256
BATCH_BYTES_MAX = 1024 * 1024
"""About as much is sent in one batch; a longer message goes alone. What a host takes from
another in one frame is bounded by the largest payload."""


class Lanes:
    """All outgoing streams of a partition."""

    __slots__ = (
        "_asked",
        "_clock",
        "_due",
        "_network",
        "_sent",
        "_state",
        "durable",
    )

    def __init__(self, state: PartitionState, network: Network, clock: Clock) -> None:
        self._state = state
        self._network = network
        self._clock = clock
        self.durable: dict[int, int] = {}
        """Destination → last sequence number that may leave."""
        self._sent: dict[int, int] = {}
        """Destination → last sequence number sent since it was last rewound."""
        self._due: dict[int, tuple[float, float, int]] = {}
        """Destination → (when to send again, after which silence, acknowledged then)."""
        self._asked: dict[int, tuple[int, float]] = {}
        """Destination → (from where it last asked to send again, when)."""

    def transmit(self, destination: int, last: int) -> None:
        """Send everything up to `last` that has not been sent."""
        self.durable[destination] = max(last, self.durable.get(destination, 0))
        self._send(destination)
        if destination not in self._due:
            self._arm(destination, RESEND_S)

    def resend(self, destination: int, first: int, last: int) -> None:
        """Send again from `first` on: the receiver misses it.

        It says so for every batch that comes behind the gap, and is heard once.
        """
        now_s = self._clock.monotonic_s()
        asked, asked_s = self._asked.get(destination, (0, float("-inf")))
        if first > last or (first == asked and now_s - asked_s < RESEND_S):
            return
        self._asked[destination] = (first, now_s)
        self._sent[destination] = first - 1
        self._send(destination)

    def hasten(self, destination: int) -> None:
        """Send again what is not acknowledged: there is a new way to the destination."""
        if destination in self._due:
            self._sent[destination] = self._state.lanes[destination].acknowledged
            self._send(destination)
            self._arm(destination, RESEND_S)

    def tick(self) -> None:
        """Send again what has not been acknowledged in time."""
        if not self._due:
            return
        now_s = self._clock.monotonic_s()
        for destination, (due_s, silence_s, acknowledged) in list(self._due.items()):
            lane = self._state.lanes[destination]
            if lane.acknowledged >= self.durable[destination]:
                del self._due[destination]
            elif lane.acknowledged > acknowledged:
                self._arm(destination, RESEND_S)
            elif now_s >= due_s:
                self._sent[destination] = lane.acknowledged
                self._send(destination)
                self._arm(destination, min(RESEND_S_MAX, 2 * silence_s))

    def _arm(self, destination: int, silence_s: float) -> None:
        acknowledged = self._state.lanes[destination].acknowledged
        due_s = self._clock.monotonic_s() + silence_s
        self._due[destination] = (due_s, silence_s, acknowledged)

    def _send(self, destination: int) -> None:
        lane = self._state.lanes[destination]
        sent = max(self._sent.get(destination, 0), lane.acknowledged)
        last = self.durable[destination]
        while sent < last:
            start = sent - lane.acknowledged
            upto = min(last, sent + BATCH_MESSAGES_MAX)
            messages = _first_of(lane.messages[start : start + upto - sent])
            upto = sent + len(messages)
            state = self._state
            deliver = Deliver(state.partition, destination, sent + 1, messages, state.epoch)
            self._network.send(destination, deliver)
            sent = upto
        self._sent[destination] = sent


def _first_of(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return at least one message, and as many as make up a batch."""
    size = 0
    for count, message in enumerate(messages):
        size += _size_of(message)
        if size > BATCH_BYTES_MAX and count:
            return tuple(messages[:count])
    return tuple(messages)


def _size_of(message: Message) -> int:
    """Return about how long a message is when it is encoded."""
    payloads = (getattr(message, name, None) for name in _PAYLOADS)
    size = sum(len(memoryview(payload)) for payload in payloads if payload is not None)
    failure: Failure | None = getattr(message, "failure", None)
    while failure is not None:
        size += len(failure.message) + len(failure.details)
        failure = failure.cause
    return size


_PAYLOADS = ("input", "result", "data")
