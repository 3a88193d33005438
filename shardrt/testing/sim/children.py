"""What a supervisor starts: shards and gateways, each in a simulated process of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.host.child import Parent
from shardrt.host.network import Loopback
from shardrt.host.process import ShardProcess
from shardrt.host.shard import Shard
from shardrt.host.visitor import Visitor
from shardrt.links import control
from shardrt.testing.sim.clocks import SimClock
from shardrt.testing.sim.database import Connection
from shardrt.testing.sim.gateway import SimGateway
from shardrt.testing.sim.network import GAP_S, LOCAL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.core.partition import Partition
    from shardrt.links.base import Link
    from shardrt.links.messages import PartitionTraffic
    from shardrt.store.base import PartitionHead
    from shardrt.testing.sim.machines import Machine
    from shardrt.testing.sim.processes import Process

START_S = (0.05, 0.4)
"""Least and most time that a child takes to come up."""


class SimParent(Parent):
    """The supervisor, as its simulated child sees it."""

    def __init__(self, child: SimChild) -> None:
        super().__init__()
        self._child = child

    def send(self, *messages: Any) -> None:
        for message in messages:
            self._child.tell(message)

    async def leave(self) -> None:
        """There is no link to close."""

    def hear(self, message: control.ToChild) -> None:
        """Take a message of the supervisor."""
        self._inbox.put_nowait(message)


class SimShard(Shard):
    """A shard whose recoveries are judged."""

    machine: Machine

    async def _recover(
        self, partition: int, epoch: int, blamed: Sequence[control.Blamed]
    ) -> tuple[Partition, PartitionHead]:
        core, head = await super()._recover(partition, epoch, blamed)
        self.machine.cluster.ledger.on_recovered(core, head.commit_lsn)
        return core, head


class SimNetwork:
    """`host.ports.Network` of a shard: within its machine, or to the gateways of others."""

    def __init__(
        self,
        child: SimChild,
        receive: Callable[[PartitionTraffic], None],
        reached: Callable[[set[int]], None],
    ) -> None:
        self._child = child
        self._reached = reached
        self._loopback = Loopback(receive)
        self._targets: Sequence[str | None] = ()

    def route(self, targets: Sequence[str | None]) -> None:
        before, self._targets = self._targets, targets
        old = dict(enumerate(before))
        changed = {p for p, target in enumerate(targets) if target and target != old.get(p)}
        if changed:
            self._reached(changed)

    def send(self, partition: int, message: PartitionTraffic) -> None:
        target = self._targets[partition] if partition < len(self._targets) else None
        cluster = self._child.machine.cluster
        if target is None:
            return
        if target == self._child.configure.socket:
            self._loopback.send(partition, message)
            return
        there = cluster.place_of(target)
        receiver: list[SimChild] = []

        def who() -> Process | None:
            found = cluster.shard_at(target, partition)
            if found is None:
                return None
            receiver.append(found)
            return found.process

        def arrive() -> None:
            receiver.pop().shard.receive(message)

        cluster.network.datagram(self._child.machine.name, there, who, arrive)

    async def run(self) -> None:
        """Nothing to keep up: there are no links."""


class SimShardProcess(ShardProcess):
    """A shard process on a simulated machine."""

    def __init__(self, child: SimChild, parent: Parent) -> None:  # its parts are simulated
        machine = child.machine
        self._parent = parent
        self._socket = child.configure.socket
        self._clock = SimClock(machine.oscillator)
        network: Any = SimNetwork(child, self._receive, self._reached)
        self._network = network
        store: Any = Connection(machine.cluster.server, child.process)
        self._child = child
        self._shard: SimShard = SimShard(
            settings=machine.settings,
            app=machine.cluster.app,
            store=store,
            clock=self._clock,
            network=network,
            owner=self,
            partitions=child.configure.partitions,
            name=machine.name,
            index=child.configure.index,
            draw=machine.cluster.random.random,
        )
        self._shard.machine = machine
        child.shard = self._shard

    async def run(self) -> None:
        await self._shard.store.open()
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(self._shard.run()),
                tasks.create_task(self._parent.beat(self._beat)),
            ]
            self._parent.send(control.Ready(self._child.pid))
            await self._obey()
            for part in parts:
                part.cancel()

    def _on_order(self, message: control.ToChild) -> None:
        super()._on_order(message)
        if isinstance(message, control.Lease):
            self._child.machine.cluster.check_lease(self._child)

    def opened(self, partition: int, epoch: int) -> None:
        self._child.machine.cluster.note("opened", self._child.process.name, partition, epoch)
        super().opened(partition, epoch)

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        cluster = self._child.machine.cluster
        cluster.note("lost", self._child.process.name, partition, epoch, broken)
        if broken:
            cluster.ledger.violated("I11", f"partition {partition} stopped: {broken}")
        super().lost(partition, epoch, broken)


class SimChild:
    """A running child, with the same face as `supervisor.process.ChildProcess`."""

    def __init__(
        self,
        machine: Machine,
        configure: control.Configure,
        started_s: float,
        on_message: Callable[[SimChild, Any], None],
        on_closed: Callable[[], None],
    ) -> None:
        assert machine.supervisor is not None, "children have parents"
        self._supervisor = machine.supervisor
        self.machine = machine
        self.configure = configure
        self.pid = machine.cluster.next_pid()
        name = f"{machine.name}.{configure.role}{configure.index}.{self.pid}"
        self.process = machine.cluster.loop.process(name, machine.name)
        self.started_s = self.heard_s = started_s
        self.ready = False
        self.stopping = False
        self.beat = control.Beat()
        self.condemned_s: float | None = None
        self.shard: Shard
        self.gateway: SimGateway
        self._on_message = on_message
        self._on_closed = on_closed
        self._code: int | None = None
        self._is_noticed = False
        self._last_to = self._last_from = 0.0
        self._parent: SimParent | None = None
        self._early: list[control.ToChild] = []
        self.process.on_death.append(self._died)
        random = machine.cluster.random
        self.process.after(random.uniform(*START_S), self._begin)

    def _begin(self) -> None:
        self.process.spawn(self._live())

    async def _live(self) -> None:
        self._parent = SimParent(self)
        for message in self._early:
            self._parent.hear(message)
        try:
            if self.configure.role == "shard":
                await SimShardProcess(self, self._parent).run()
            else:
                self.gateway = SimGateway(self, self._parent)
                await self.gateway.run()
        except Exception as error:  # noqa: BLE001 - it is the end of this process
            self.machine.cluster.ledger.violated("I11", f"{self.process.name} failed: {error!r}")
            self._code = 1
        else:
            self._code = 0
        self.process.kill()

    def visit(self, link: Link) -> Visitor:
        """Let a gateway in."""
        return Visitor(self.shard, link)

    # -- child → supervisor ----------------------------------------------------------------------

    def tell(self, message: Any) -> None:
        """Send something to the supervisor."""
        now_s = self.machine.cluster.loop.time()
        self._last_from = max(self._last_from + GAP_S, now_s + LOCAL_S)
        self._supervisor.at(self._last_from, self._on_message, self, message)

    def _died(self) -> None:
        if self._code is None:
            self._code = -9
        # The supervisor notices the end of the link, after the last words.
        now_s = self.machine.cluster.loop.time()
        self._supervisor.at(max(self._last_from, now_s) + LOCAL_S, self._noticed)

    def _noticed(self) -> None:
        self._is_noticed = True
        self._on_closed()

    # -- supervisor.process.ChildProcess ---------------------------------------------------------

    def ended(self, now_s: float) -> int | None:
        del now_s
        return self._code if self._is_noticed else None

    def send(self, message: control.ToChild) -> None:
        now_s = self.machine.cluster.loop.time()
        self._last_to = max(self._last_to + GAP_S, now_s + LOCAL_S)
        self.process.at(self._last_to, self._hear, message)

    def _hear(self, message: control.ToChild) -> None:
        if self._parent is None:
            self._early.append(message)
        else:
            self._parent.hear(message)

    def stop(self, grace_s: float) -> None:
        if not self.stopping:
            self.stopping = True
            self.send(control.Stop(grace_s))

    def kill(self) -> None:
        self.process.kill()

    def cpu_s(self) -> float | None:
        """Nobody counts what it computes."""
        return None

    def tell_where(self) -> None:
        """It has no stacks to show."""

    def close(self) -> None:
        """There is no link to close."""
