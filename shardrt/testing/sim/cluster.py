"""The whole: machines, networks, the database, and where to find whom."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shardrt.core.ids import partition_of
from shardrt.testing.sim.database import Server
from shardrt.testing.sim.ledger import Ledger
from shardrt.testing.sim.machines import Machine
from shardrt.testing.sim.network import Network, Weather
from shardrt.testing.sim.processes import current
from shardrt.testing.virtual import true_now_us

if TYPE_CHECKING:
    from random import Random

    from shardrt.config import Settings
    from shardrt.host.partition_host import PartitionHost
    from shardrt.orchestration.app import App
    from shardrt.testing.sim.children import SimChild
    from shardrt.testing.sim.clocks import Oscillator
    from shardrt.testing.sim.processes import SimLoop

DRIFT_S = 0.02
"""How much longer a lease may seem by a slow clock than by the database's."""


class Cluster:
    """One hub and all that belongs to it."""

    def __init__(self, loop: SimLoop, random: Random, app: App, partitions: int) -> None:
        self.loop = loop
        self.random = random
        self.app = app
        self.partitions = partitions
        self.ledger = Ledger(loop, partitions)
        self.network = Network(loop, random, Weather())
        self.server = Server(loop, random, self.network, self.ledger)
        self.ledger.store = self.server.store
        self.ledger.answering = self.answering
        self.ledger.is_current = self.is_current
        self.machines: list[Machine] = []
        self.started: list[str] = []
        """Ids that clients have started, or tried to."""
        self.trace: list[tuple[object, ...]] = []
        self._pids = 100

    async def create(self) -> None:
        """Make the hub."""
        await self.server.create(self.partitions)

    def add_machine(self, settings: Settings, oscillator: Oscillator) -> Machine:
        machine = Machine(self, f"h{len(self.machines) + 1}", settings, oscillator)
        self.machines.append(machine)
        return machine

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def note(self, *what: object) -> None:
        """Add to the trace."""
        self.trace.append((round(self.loop.time(), 9), *what))

    def fingerprint(self) -> str:
        """Return what is the same for two runs only if they were the same."""
        return hashlib.blake2b(repr(self.trace).encode(), digest_size=8).hexdigest()

    # -- who is where --------------------------------------------------------------------------

    def place_of(self, target: str) -> str:
        """Return the machine of a route: a path of a socket, or a URL."""
        return target.partition("#")[0].removeprefix("http://").strip("/").partition("/")[0]

    def machine(self, name: str) -> Machine | None:
        return next((each for each in self.machines if each.name == name), None)

    def listener_at(self, target: str) -> SimChild | None:
        """Return who listens there, if anybody does."""
        machine = self.machine(self.place_of(target))
        if machine is None:
            return None
        if "://" in target:
            return next(iter(machine.child("gateway")), None)
        shards = machine.child("shard")
        return next((each for each in shards if each.configure.socket == target), None)

    def shard_at(self, target: str, partition: int) -> SimChild | None:
        """Return the shard that gets messages for a partition sent there."""
        if "://" not in target:
            return self.listener_at(target)
        machine = self.machine(self.place_of(target))
        shards = [] if machine is None else machine.child("shard")
        return next((each for each in shards if partition in each.shard.hosts), None)

    def check_lease(self, child: SimChild) -> None:
        """Judge a shard that has just been told how long it may serve."""
        machine, shard = child.machine, child.shard
        left_s = shard.committer.lease_until_s - machine.oscillator.monotonic_s()
        serves = any(not host.closed for host in shard.hosts.values())
        row = self.server.store._hub.hosts.get(machine.name)  # noqa: SLF001 - the judge may look
        if left_s <= 0 or (row is None and not serves):
            return  # it answers nobody; a host that has left gives it nothing more, either
        ends_s = 0.0 if row is None else (row.expires_at - true_now_us(self.loop)) / 1e6
        if left_s > ends_s + DRIFT_S:
            text = (
                f"{child.process.name} believes in its lease for {left_s:.3f} s, not {ends_s:.3f}"
            )
            self.ledger.violated("I12", text)
        for partition, host in shard.hosts.items():
            if not host.closed and host.epoch < self.ledger.epochs[partition]:
                text = f"{child.process.name} answers for partition {partition} of another owner"
                self.ledger.violated("I12", text)

    def answering(self, partition: int, before: int) -> list[str]:
        """Return who has a partition under an earlier epoch and a lease that it believes in."""
        found = []
        for machine in self.machines:
            now_s = machine.oscillator.monotonic_s()
            for child in machine.child("shard"):
                host = child.shard.hosts.get(partition)
                if (
                    host is not None
                    and not host.closed
                    and host.epoch < before
                    and now_s < child.shard.committer.lease_until_s
                ):
                    found.append(child.process.name)
        return found

    def is_current(self, instance_id: str) -> bool:
        """Return whether the process that runs now owns the instance's partition."""
        partition = partition_of(instance_id, self.partitions)
        owner = self.owner_of(partition)
        shards = [child for each in self.machines for child in each.child("shard")]
        mine = [child for child in shards if child.process is current()]
        return owner is not None and bool(mine) and mine[0].shard.hosts.get(partition) is owner

    def owner_of(self, partition: int) -> PartitionHost | None:
        """Return the partition at work under the newest epoch, if it is."""
        for machine in self.machines:
            for child in machine.child("shard"):
                host = child.shard.hosts.get(partition)
                if host is not None and host.epoch == self.ledger.epochs[partition]:
                    return host
        return None
