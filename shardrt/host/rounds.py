"""Rounds: once per turn of the loop the partitions that have news run their orchestrators.

What has begun goes first. After that starts are let in, if there is room; see `arrivals`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardrt.core.requests import Start
from shardrt.host.arrivals import STALL_S, Arrivals, Motion

if TYPE_CHECKING:
    from shardrt.host.intake import Intake
    from shardrt.host.partition_host import PartitionHost
    from shardrt.host.shard import Shard
    from shardrt.host.surroundings import Answering
    from shardrt.links.messages import Forward

TURN_S = 0.02
"""Longest that orchestrators run before the loop sees to everything else."""
ENOUGH = 64
"""A commit of so many turns waits for no others: these run while it is under way."""


class Rounds:
    """The rounds of one shard."""

    def __init__(self, shard: Shard, intake: Intake) -> None:
        self.motion = Motion()
        self.arrivals = Arrivals(shard)
        self._shard = shard
        self._intake = intake
        self._woken: dict[PartitionHost, None] = {}
        self._is_called = False
        shard.committer.gathers = self._gathers
        shard.committer.on_sealed = self.motion.seal
        shard.committer.on_saved = self._saved
        shard.committer.on_committed = self._committed

    def wake(self, host: PartitionHost) -> None:
        """Let the partition take part in the next round."""
        self._woken[host] = None
        self._call()

    def holds_back(self, call: Forward, answer: Answering) -> bool:
        """Take a start, to let it in with the next round or when there is room.

        Return False for any other call; what it must not overtake has been let in then. So for
        a start that its partition would refuse.
        """
        if type(call.request) is Start:
            host = self._shard.hosts.get(call.partition)
            if host is None or host.frozen:
                return False
            self._intake.starts_taken = max(0, self._intake.starts_taken - 1)
            self.arrivals.take(call, answer)
            self._call()
            return True
        if self.arrivals.concerns(call.instance_id):
            self.arrivals.flush(call.partition)
        return False

    def gone(self, host: PartitionHost) -> None:
        """Note that a partition has been discarded."""
        self._woken.pop(host, None)
        self.arrivals.flush(host.partition)
        # What it has run counts until the next commit. There may be nobody else to cause one.
        self._shard.committer.wake(host)

    def _gathers(self) -> bool:
        """Whether turns are about to run that the next commit should have."""
        soon = self._shard.pool.about_to_begin
        return (soon > 0 or self._is_called) and self.motion.unsealed + soon < ENOUGH

    def _saved(self, seconds: float) -> None:
        self._shard.meter.saved(seconds)
        self.motion.saved(seconds)

    def _committed(self) -> None:
        self.motion.committed()
        if self.arrivals:
            self._call()

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_called = False
        self._intake.starts_taken = 0
        deadline_s = self._shard.clock.monotonic_s() + TURN_S
        with self._shard.turns.executor.turns():
            self._run_woken(deadline_s)
            if self.arrivals:
                self._let_in(deadline_s)

    def _run_woken(self, deadline_s: float) -> None:
        turns = self._shard.turns
        before = turns.ran
        woken, self._woken = self._woken, {}
        for host in woken:
            if not host.closed:
                self._shard.turn_of(host, deadline_s)
        self.motion.unsealed += turns.ran - before

    def _let_in(self, deadline_s: float) -> None:
        if self._woken:
            return  # some of those that have begun have turns left
        shard, motion = self._shard, self.motion
        room = motion.limit - motion.unsealed - motion.sealed - shard.pool.about_to_begin
        if shard.committer.wait_s > STALL_S:
            room = len(self.arrivals)
        while count := self.arrivals.let_in(room):
            room -= count
        self._run_woken(deadline_s)
        if self.arrivals and not motion.ends:
            self._call()  # else a commit does
