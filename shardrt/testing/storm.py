"""Faults by seed: how hard a hub has it, and what goes wrong when.

A storm ends: it has a number of faults to spend. After that everything works, except that the
network stays as it is, and so whatever can finish must finish.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from shardrt.testing.faults import Fault

if TYPE_CHECKING:
    from shardrt.testing.hub import Hub

FAULTS_MAX = 20
"""Store calls that fail or are a shard's last, per storm."""
INCIDENTS_MAX = 8
_FAILURES = (Fault.BEFORE, Fault.AFTER, Fault.LOST)
_CRASHES = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What is wrong with a hub. The defaults: nothing."""

    shards: int = 1
    partitions: int = 1
    latency_s: float = 0.0
    """At most so long does a call of the store take, before its effect and again after it."""
    failures: float = 0.0
    """Probability that a call of the store fails: before or after its effect, or nobody knows."""
    crashes: float = 0.0
    """Probability that a shard dies in a call of the store, before or after its effect."""
    incidents: int = 0
    """How often a shard dies at any time, or partitions move, with or without its knowledge."""
    pause_s: float = 1.0
    """At most so much time is between incidents."""
    delay_s: float = 0.0
    """At most so long is a message between partitions under way. They overtake each other."""
    loss: float = 0.0
    """Probability that a message between partitions, or an answer to the client, is lost."""
    repetition: float = 0.0
    """Probability that a message between partitions, or a call of the client, comes twice."""
    checkpoint_s: float = 1.0
    evicts: bool = False
    """Whether idle instances are evicted at each checkpoint, and replayed when needed again."""

    @classmethod
    def drawn(cls, seed: int) -> Mix:
        """Return the mix of a seed; that of 0 is harmless."""
        if seed == 0:
            return cls()
        random = Random(f"mix {seed}")  # noqa: S311
        return cls(
            shards=random.randint(1, 3),
            partitions=random.randint(1, 5),
            latency_s=random.choice((0.0, 0.001, 0.01, 0.05)),
            failures=random.choice((0.0, 0.02, 0.1)),
            crashes=random.choice((0.0, 0.02, 0.1)),
            incidents=random.choice((0, random.randint(1, INCIDENTS_MAX))),
            pause_s=random.choice((0.005, 0.05, 0.5, 5.0)),
            delay_s=random.choice((0.001, 0.02, 0.2)),
            loss=random.choice((0.0, 0.02, 0.2)),
            repetition=random.choice((0.0, 0.02, 0.2)),
            checkpoint_s=random.choice((0.01, 0.05, 1.0)),
            evicts=random.choice((False, True)),
        )

    def __str__(self) -> str:
        facts = ((name, getattr(self, name)) for name in self.__slots__)
        return ", ".join(f"{name}={value}" for name, value in facts)


class Storm:
    """The faults of one hub. Implements `faults.Plan`."""

    def __init__(self, mix: Mix, hub: Hub) -> None:
        self.happened: list[str] = []
        """What went wrong so far, with its time, s."""
        self._mix = mix
        self._hub = hub
        self._random = hub.random
        self._left = FAULTS_MAX

    def fault(self, number: int, name: str) -> Fault | None:
        """Return what becomes of a call of the store."""
        draw = self._random.random()
        if not self._left or draw >= self._mix.failures + self._mix.crashes:
            return None
        self._left -= 1
        fault = self._random.choice(_FAILURES if draw < self._mix.failures else _CRASHES)
        self._note(f"store call {number}, {name}: {fault.value}")
        return fault

    async def rage(self) -> None:
        """Crash shards and move partitions, a number of times."""
        for _ in range(self._mix.incidents):
            await asyncio.sleep(self._random.uniform(0, self._mix.pause_s))
            partition = self._random.randrange(self._hub.partitions)
            match self._random.choice(("crash", "revoke", "depose")):
                case "crash":
                    self._crash()
                case "revoke":
                    self._note(f"partition {partition} is handed over")
                    self._hub.revoke(partition)
                case _:
                    self._note(f"partition {partition} is taken away")
                    await depose(self._hub, partition, self._random.uniform(0, 0.3))

    def _crash(self) -> None:
        member = self._random.choice(self._hub.members)
        self._note(f"shard {member.index} crashes")
        self._hub.crash(member)

    def _note(self, what: str) -> None:
        self._hub.note(what)
        self.happened.append(f"{asyncio.get_running_loop().time():.3f} {what}")


async def depose(hub: Hub, partition: int, zombie_s: float) -> None:
    """Give a partition to another shard, while its owner goes on for so long."""
    old = hub.owners[partition]
    hub.zombies += 1
    try:
        await hub.depose(partition)
        await asyncio.sleep(zombie_s)
        if hub.owners[partition] is not old:
            old.shard.discard(partition)
    finally:
        hub.zombies -= 1
