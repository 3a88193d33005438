"""Networks between machines: late, lossy, repeating, cut. Links over them are as TCP makes them.

A *wire* is a two-way stream: in order, nothing lost while it lasts. A cut holds back what is
sent, and ends the wire if it lasts; the death of one end tells the other, at once or, where
the machine went too, after a while. *Datagrams* are what partitions send each other: whatever
can happen to a message happens to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from shardrt.links.base import LinkHandler
    from shardrt.testing.sim.processes import Process, SimLoop

LOCAL_S = 0.0002
"""How long a message takes between processes of one machine."""
GAP_S = 1e-7
"""Least time between two messages of a stream, which keeps them in order."""


@dataclass(slots=True, kw_only=True)
class Weather:
    """How the networks are; may be changed at any time."""

    delay_s: tuple[float, float] = (0.0003, 0.0015)
    """Least and most."""
    loss: float = 0.0
    """Probability that a datagram never arrives."""
    repetition: float = 0.0
    """Probability that a datagram, or a call from a gateway to a shard, arrives twice."""
    straggle_s: float = 0.0
    """How late a datagram, or such a repetition, may be besides."""


class Network:
    """All that is between places."""

    def __init__(self, loop: SimLoop, random: Random, weather: Weather) -> None:
        self.loop = loop
        self.random = random
        self.weather = weather
        self.cuts: set[tuple[str, str]] = set()
        """(from, to): nothing gets through that way."""
        self.lost = 0
        self.repeated = 0
        self._wires: dict[int, Wire] = {}
        self._wire_count = 0

    def delay_s(self, source: str, target: str) -> float:
        """Draw how long a message takes."""
        return LOCAL_S if source == target else self.random.uniform(*self.weather.delay_s)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self.cuts

    def cut(self, source: str, target: str, break_s: tuple[float, float]) -> None:
        """Let nothing through that way. Wires break if it lasts, after a time drawn from this."""
        self.cuts.add((source, target))
        for wire in list(self._wires.values()):
            if wire.crosses(source, target):
                self.loop.later(self.random.uniform(*break_s), wire.give_up)

    def heal(self, source: str, target: str) -> None:
        """Let everything through again, also what was held back."""
        self.cuts.discard((source, target))
        for wire in list(self._wires.values()):
            wire.flush()

    def datagram(
        self, source: str, target: str, to: Callable[[], Process | None], act: Callable[[], None]
    ) -> None:
        """Call `act` later as whoever is there then: once, or not at all, or twice."""
        weather, random = self.weather, self.random
        if self.is_cut(source, target) or (weather.loss and random.random() < weather.loss):
            self.lost += 1
            return
        times = 1
        if weather.repetition and random.random() < weather.repetition:
            self.repeated += 1
            times = 2
        for _ in range(times):
            delay_s = self.delay_s(source, target)
            if weather.straggle_s:
                delay_s += random.random() * weather.straggle_s

            def arrive() -> None:
                process = to()
                if process is not None:
                    process.after(0.0, act)

            self.loop.later(delay_s, arrive)

    def connect(self, near: Process, far: Process) -> tuple[End, End]:
        """Make a wire between two processes; both ends need a handler at once."""
        self._wire_count += 1
        wire = Wire(self, self._wire_count, near, far)
        self._wires[wire.number] = wire
        return wire.ends

    def forget(self, wire: Wire) -> None:
        self._wires.pop(wire.number, None)


class Wire:
    """A stream between two processes."""

    def __init__(self, network: Network, number: int, near: Process, far: Process) -> None:
        self.network = network
        self.number = number
        self.is_open = True
        one, other = End(self, near), End(self, far)
        one.peer, other.peer = other, one
        self.ends = (one, other)
        for end in self.ends:
            end.process.on_death.append(end.died)

    def crosses(self, source: str, target: str) -> bool:
        return any(
            end.process.place == source and end.peer.process.place == target for end in self.ends
        )

    def give_up(self) -> None:
        """End if one of the ways is still cut."""
        cut = self.network.is_cut
        if any(cut(end.process.place, end.peer.process.place) for end in self.ends):
            self.end(0.0)

    def flush(self) -> None:
        """Send what was held back."""
        for end in self.ends:
            end.flush()

    def end(self, delay_s: float) -> None:
        """Tell both ends that this is over."""
        if self.is_open:
            self.is_open = False
            self.network.forget(self)
            for each in self.ends:
                each.process.after(delay_s, each.tell_end)


class End:
    """One end of a wire. Implements `links.base.Link`."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self.wire = wire
        self.process = process
        self.peer: End
        self.handler: LinkHandler
        self._held: list[Any] = []
        self._last = 0.0
        self._told_end = False

    @property
    def is_open(self) -> bool:
        return self.wire.is_open and not self._told_end

    @property
    def is_congested(self) -> bool:
        return False

    def send(self, message: Any) -> None:
        if not self.is_open:
            return
        self._held.append(message)
        if len(self._held) == 1:
            self.wire.network.loop.call_soon(self.flush)

    def close(self) -> None:
        self.flush()
        self.wire.end(self.wire.network.delay_s(self.process.place, self.peer.process.place))

    def flush(self) -> None:
        """Send what is held, unless the way is cut."""
        network = self.wire.network
        source, target = self.process.place, self.peer.process.place
        if not self._held or not self.wire.is_open or network.is_cut(source, target):
            return
        messages, self._held = self._held, []
        now_s = network.loop.time()
        self._last = max(self._last + GAP_S, now_s + network.delay_s(source, target))
        self.peer.process.at(self._last, self.peer.receive, messages)

    def receive(self, messages: list[Any]) -> None:
        if not self._told_end:
            self.handler.on_messages(messages)

    def tell_end(self) -> None:
        if not self._told_end:
            self._told_end = True
            self.handler.on_closed()

    def died(self) -> None:
        """The process at this end is dead: the other learns it, if there is anybody to say so."""
        self.wire.end(LOCAL_S if self._is_reset() else self.wire.network.random.uniform(0.5, 5.0))

    def _is_reset(self) -> bool:
        # The machine of a process that died alone says so.
        is_local = self.process.place == self.peer.process.place
        return is_local or self.wire.network.random.random() < 0.7
