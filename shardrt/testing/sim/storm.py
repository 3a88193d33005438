"""What goes wrong in a run, and when: each kind of fault is on or off by seed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardrt.testing.sim.database import PLACE, Ailments
from shardrt.testing.sim.network import Weather

if TYPE_CHECKING:
    from random import Random

    from shardrt.testing.sim.cluster import Cluster
    from shardrt.testing.sim.machines import Machine

INCIDENTS = (
    "crash host",
    "crash shard",
    "pause host",
    "pause shard",
    "pause supervisor",
    "stop host",
    "cut",
    "cut from database",
    "slow database",
    "outage",
    "wall clock",
)
"""What happens now and then."""
STATES = ("store errors", "store stalls", "unreadable rows", "loss", "stragglers", "clocks")
"""What lasts from the beginning of a run until all is healed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climate:
    """The faults of one run."""

    kinds: frozenset[str]
    interval_s: float
    """Mean time between two incidents."""
    lasts_s: float

    @staticmethod
    def draw(random: Random) -> Climate:
        share = random.choice((0.0, 0.2, 0.4, 0.7, 1.0))
        return Climate(
            kinds=frozenset(each for each in INCIDENTS + STATES if random.random() < share),
            interval_s=random.choice((0.7, 1.5, 4.0)),
            lasts_s=random.uniform(6.0, 20.0),
        )


class Storm:
    """Makes things go wrong, and heals all of it in the end."""

    def __init__(self, cluster: Cluster, climate: Climate, random: Random, ttl_s: float) -> None:
        self._cluster = cluster
        self._climate = climate
        self._random = random
        self._ttl_s = ttl_s
        self.incidents = 0

    def begin(self) -> None:
        """Set what lasts."""
        kinds, random = self._climate.kinds, self._random
        ailments, weather = Ailments(), Weather()
        ailments.latency_s = (0.0002, random.choice((0.002, 0.02)))
        if "store errors" in kinds:
            rate = random.choice((0.01, 0.05))
            ailments.refusal = ailments.lost_answer = ailments.lost_call = ailments.ghost = rate
        if "store stalls" in kinds:
            ailments.stall, ailments.stall_s = random.choice((0.02, 0.2)), random.choice((0.5, 4.0))
        if "unreadable rows" in kinds:
            ailments.unreadable = random.choice((0.2, 0.5))
        weather.delay_s = (0.0003, random.choice((0.002, 0.05)))
        if "loss" in kinds:
            weather.loss = random.choice((0.02, 0.3))
            weather.repetition = random.choice((0.05, 0.3))
        if "stragglers" in kinds:
            weather.straggle_s = random.choice((0.1, 2.0))
            weather.repetition = max(weather.repetition, 0.05)
        self._cluster.server.ailments = ailments
        self._cluster.network.weather = weather

    async def rage(self) -> None:
        """Have incidents, until it is over."""
        loop, random, climate = self._cluster.loop, self._random, self._climate
        kinds = [each for each in INCIDENTS if each in climate.kinds]
        end_s = loop.time() + climate.lasts_s
        while loop.time() < end_s and not self._cluster.ledger.violations:
            await asyncio.sleep(random.uniform(0.1, 2 * climate.interval_s))
            if kinds and loop.time() < end_s:
                kind = random.choice(kinds)
                self._cluster.note("incident", kind)
                self.incidents += 1
                getattr(self, f"_{kind.replace(' ', '_')}")()

    def heal(self) -> None:
        """Let everything work again."""
        cluster = self._cluster
        cluster.note("heal")
        cluster.server.ailments = Ailments()
        cluster.server.slow.clear()
        cluster.network.weather = Weather()
        for cut in sorted(cluster.network.cuts):
            cluster.network.heal(*cut)
        for process in cluster.loop.processes:
            process.go_on()
        for machine in cluster.machines:
            if machine.is_stopping:
                machine.crash()  # a second signal
            machine.start()

    # -- incidents -------------------------------------------------------------------------------

    def _duration_s(self) -> float:
        """Draw how long something lasts: from half a TTL, rarely very long."""
        factor = self._random.choice((0.1, 0.5, 0.9, 1.1, 1.5, 2.0, 3.0, 30.0))
        return self._ttl_s * factor

    def _machine(self) -> Machine:
        return self._random.choice(self._cluster.machines)

    def _later(self, delay_s: float, machine: Machine) -> None:
        self._cluster.loop.later(delay_s, machine.start)

    def _crash_host(self) -> None:
        machine = self._machine()
        machine.crash()
        self._later(self._random.choice((0.1, 1.0, 2.0)) * self._ttl_s, machine)

    def _crash_shard(self) -> None:
        if shards := self._machine().child("shard"):
            self._random.choice(shards).process.kill()

    def _pause_host(self) -> None:
        duration_s = self._duration_s()
        for process in self._machine().processes:
            process.stop()
            self._cluster.loop.later(duration_s, process.go_on)

    def _pause_shard(self) -> None:
        if shards := self._machine().child("shard"):
            process = self._random.choice(shards).process
            process.stop()
            self._cluster.loop.later(self._duration_s(), process.go_on)

    def _pause_supervisor(self) -> None:
        process = self._machine().supervisor
        if process is not None:
            process.stop()
            self._cluster.loop.later(self._duration_s(), process.go_on)

    def _stop_host(self) -> None:
        machine = self._machine()
        machine.stop()
        self._later(self._random.choice((2.0, 4.0)) * self._ttl_s, machine)

    def _cut(self) -> None:
        places = [*(machine.name for machine in self._cluster.machines), "clients"]
        self._cut_between(*self._random.sample(places, 2))

    def _cut_from_database(self) -> None:
        self._cut_between(self._machine().name, PLACE)

    def _slow_database(self) -> None:
        server, place = self._cluster.server, self._machine().name
        # So that renewals fail more often than not, and now and then succeed.
        server.slow[place] = self._random.choice((0.1, 0.4, 0.5, 0.7, 1.5)) * self._ttl_s

        def back() -> None:
            server.slow.pop(place, None)

        self._cluster.loop.later(self._random.choice((1.5, 3.0, 6.0)) * self._ttl_s, back)

    def _cut_between(self, one: str, other: str) -> None:
        ways = [(one, other), (other, one)]
        if self._random.random() < 0.4:
            ways.remove(self._random.choice(ways))
        duration_s = self._duration_s()
        for way in ways:
            self._cluster.network.cut(*way, (1.0, 6.0))
            self._cluster.loop.later(duration_s, self._cluster.network.heal, *way)

    def _outage(self) -> None:
        ailments = self._cluster.server.ailments
        ailments.is_away, ailments.hangs = True, self._random.random() < 0.5

        def back() -> None:
            ailments.is_away = False

        self._cluster.loop.later(self._duration_s(), back)

    def _wall_clock(self) -> None:
        hours = self._random.choice((-24.0, -1.0, -0.001, 0.001, 1.0, 24.0))
        self._machine().oscillator.wall_skew_us = round(hours * 3600e6)
