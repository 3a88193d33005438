"""Starts that wait to be let in, because enough instances are in motion.

An instance is in motion while its code has run and that is to be committed, or an activity of it
is about to begin. What waits for anything else, as for an event, a timer, or an activity that
takes its time, is not, and holds up nobody. If instances end one after the other, rather than
all at once and late, there are fewer in memory at a time, and the processor's caches are
large enough for them. And what begins together in a partition shares its records.

How many are enough depends on the store: each waits for a commit between two of its turns, and
others have to fill that time. As in a network, it is the rate times the delay of an empty line:
the shortest commit of late.

A start that waits has been checked, is counted like any request in flight, and is not recorded.
It may be overtaken, but neither by other starts of its partition, nor by what concerns its own
instance: that brings it in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shardrt.host.surroundings import payload_bytes

if TYPE_CHECKING:
    from shardrt.host.shard import Shard
    from shardrt.host.surroundings import Answering
    from shardrt.links.messages import Forward

MOTION_MIN = 150
"""So many may be in motion however quick commits are: they take a shard some 3 ms."""
TURN_COST_S = 10e-6
"""Less than what a shard spends on an instance from one commit to the next."""
FORGET = 1.02
"""A commit that is longer by so much than the shortest takes its place."""
TOGETHER = 200
"""All that wait in a partition are let in at once where there is room for any, up to so many."""
WAIT_S_MAX = 1.0
"""Who has waited for so long is let in soon, whatever else there is to do."""
STALL_S = 0.1
"""While a commit takes longer than that there is time for everything."""


class Motion:
    """How many turns are on their way to a commit."""

    def __init__(self) -> None:
        self.unsealed = 0
        """Turns that have run and are in no commit yet."""
        self.sealed = 0
        """Turns in the commit that is under way."""
        self._commit_s = 0.0

    @property
    def limit(self) -> int:
        """How many instances keep the shard busy while one of their commits is under way."""
        return max(MOTION_MIN, int(self._commit_s / TURN_COST_S))

    @property
    def ends(self) -> bool:
        """Whether the end of a commit is to come."""
        return bool(self.unsealed or self.sealed)

    def seal(self) -> int:
        """Note that a commit begins, with every turn that has run; return how many these are."""
        self.sealed, self.unsealed = self.unsealed, 0
        return self.sealed

    def committed(self) -> None:
        """Note that it has come to its end."""
        self.sealed = 0

    def saved(self, seconds: float) -> None:
        """Note how long the store took for one."""
        self._commit_s = min(seconds, self._commit_s * FORGET) if self._commit_s else seconds


class Arrival(NamedTuple):
    """A start that waits."""

    call: Forward
    answer: Answering
    at_s: float
    bytes: int


class Arrivals:
    """The starts that wait in one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._waiting: dict[int, list[Arrival]] = {}
        """By partition; it is the turn of the first."""
        self._ids: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(self, call: Forward, answer: Answering) -> None:
        """Have a start wait; the next round may let it in."""
        size = payload_bytes(call.request)
        arrival = Arrival(call, answer, self._shard.clock.monotonic_s(), size)
        self._waiting.setdefault(call.partition, []).append(arrival)
        self._ids.add(call.instance_id)
        self._count += 1
        self._shard.requests_in_flight += 1
        self._shard.bytes_in_flight += size

    def let_in(self, room: int) -> int:
        """Hand starts of one partition to it; return how many, 0 if there is no room for any."""
        if room <= 0 or not self._waiting:
            return 0
        partition, waiting = next(iter(self._waiting.items()))
        del self._waiting[partition]
        count = max(room, TOGETHER)
        if len(waiting) > count:
            self._waiting[partition] = waiting[count:]  # after those of others
        self._admit(waiting[:count])
        return min(count, len(waiting))

    def concerns(self, instance_id: str) -> bool:
        """Whether a start of that instance waits."""
        return instance_id in self._ids

    def flush(self, partition: int) -> None:
        """Hand all that wait for a partition to it, which refuses them if it takes no more."""
        self._admit(self._waiting.pop(partition, []))

    def let_in_old(self) -> None:
        """Let in all partitions' starts the first of which has waited for very long."""
        before_s = self._shard.clock.monotonic_s() - WAIT_S_MAX
        for partition in [p for p, each in self._waiting.items() if each[0].at_s <= before_s]:
            self.flush(partition)

    def _admit(self, arrivals: list[Arrival]) -> None:
        shard = self._shard
        self._count -= len(arrivals)
        shard.requests_in_flight -= len(arrivals)
        for call, answer, _, size in arrivals:
            shard.bytes_in_flight -= size
            self._ids.discard(call.instance_id)
            shard.hand_over(call, answer)
