"""Lines in front of what only so many attempts may use at a time.

A shard has room for so many attempts. Behind that are *gates*, for what is scarcer: threads,
worker processes, an activity with a bound of its own. A place behind a gate is taken by an
attempt when it starts, and given back when its code has really ended: a thread that goes on
after it was cancelled still holds its place, or there would soon be too many.

What waits at a gate holds no place anywhere, so attempts cannot block each other.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from shardrt.host.attempts import Attempt, Key, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shardrt.host.attempts import Asker


class Gate:
    """Places for one kind of attempt, and who waits for one."""

    __slots__ = ("line", "places", "used")

    def __init__(self, places: int) -> None:
        self.places = places
        self.used = 0
        self.line: deque[Attempt] = deque()


class Lines:
    """Everything that waits in a shard, and who is next. First come, first served, per gate."""

    def __init__(self) -> None:
        self.waiting: dict[Key, Attempt] = {}
        """What is in a line. A line may also hold what has been forgotten since."""
        self._room = Gate(0)
        """Waits for room in the shard, at no gate in particular."""
        self._open: dict[Gate, None] = {}
        """Gates at which places were given back since anybody was let through."""

    def wait(self, attempt: Attempt, gate: Gate | None = None) -> None:
        """Put an attempt in line at a gate, or else for room in the shard."""
        self.waiting[key_of(attempt.run)] = attempt
        (gate or self._room).line.append(attempt)

    def forget(self, key: Key) -> None:
        """Take an attempt out of whatever line it is in, if it is in one."""
        self.waiting.pop(key, None)

    def forget_all(self, asker: Asker) -> None:
        """Take out everything that a partition asked for."""
        for key in [key for key, each in self.waiting.items() if each.asker is asker]:
            del self.waiting[key]

    def clear(self) -> None:
        """Take out everything."""
        self.waiting.clear()

    def give_back(self, gates: Iterable[Gate]) -> None:
        """Give up a place behind each gate."""
        for gate in gates:
            gate.used -= 1
            if gate.line:
                self._open[gate] = None

    def let_through(self, has_room: Callable[[], bool], start: Callable[[Attempt], None]) -> None:
        """Start those who waited, as long as there is room in the shard.

        `start` may also put an attempt in line again, at another gate.
        """
        while (self._open or self._room.line) and has_room():
            attempt = self._next()
            if attempt is None:
                return
            start(attempt)

    def _next(self) -> Attempt | None:
        # Those at a gate have been in line for the shard before.
        while self._open:
            gate = next(iter(self._open))
            while gate.line and gate.used < gate.places:
                if (attempt := self._take(gate)) is not None:
                    return attempt
            del self._open[gate]
        while self._room.line:
            if (attempt := self._take(self._room)) is not None:
                return attempt
        return None

    def _take(self, gate: Gate) -> Attempt | None:
        attempt = gate.line.popleft()
        if self.waiting.get(key_of(attempt.run)) is not attempt:
            return None
        del self.waiting[key_of(attempt.run)]
        return attempt
