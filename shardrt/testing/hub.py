"""A whole hub in one event loop: real shards on a store in memory, with faults by seed.

Everything that could differ between two runs is drawn from one generator, so under
`testing.virtual` the same seed gives the same trace. The part of a supervisor is played here:
shards that die are replaced, and their partitions claimed with a new epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from shardrt.config import Settings
from shardrt.core.entries import Acknowledged, Forgot
from shardrt.host.shard import Shard
from shardrt.links.messages import FromShard, PartitionTraffic, ToShard
from shardrt.store.memory import MemoryStore
from shardrt.testing.faults import Calls, FaultyStore
from shardrt.testing.network import Air, Weather
from shardrt.testing.virtual import VirtualClock, true_now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from shardrt.host.partition_host import PartitionHost
    from shardrt.links.messages import Answer, Forward
    from shardrt.orchestration.app import App
    from shardrt.store.base import Store
    from shardrt.testing.faults import Plan
    from shardrt.tracing.tracer import Tracer

OWNER = "host/1"
LEASE_S = 10.0
TAKE_OVER_S = 0.05
"""How long it takes to notice that a shard is dead, and to start another."""

_UNHURRIED = (Acknowledged, Forgot)
"""Entries that may wait for the next record, however long that takes."""

_encode = msgspec.json.Encoder().encode
_to_shard = msgspec.json.Decoder(ToShard)
_from_shard = msgspec.json.Decoder(FromShard)


class Member:
    """One shard process. Implements `host.ports.Owner` and `host.ports.Network` for it."""

    def __init__(self, hub: Hub, index: int) -> None:
        self.hub = hub
        self.index = index
        self.is_alive = True
        self.has_lease = True
        self.store = FaultyStore(hub.store.sibling(), hub.calls)
        self.store.on_crash = lambda: hub.crash(self)
        self.clock = VirtualClock()
        self.shard = Shard(
            settings=hub.settings,
            app=hub.app,
            store=cast("Store", self.store),
            clock=self.clock,
            network=self,
            owner=self,
            partitions=hub.partitions,
            name="host",
            index=index,
            draw=hub.random.random,
            tracer=hub.tracer,
        )
        if hub.evicts:
            self.shard.checkpointer.resident_bytes_max = 0
        self.cancel = hub.spawn(self._run())

    async def _run(self) -> None:
        await self.store.open()
        self.renew()
        await self.shard.run()

    def renew(self) -> None:
        """Prolong the lease, unless it is to run out."""
        if self.has_lease:
            self.shard.extend_lease(self.clock.monotonic_s() + self.hub.lease_s)

    def send(self, partition: int, message: PartitionTraffic) -> None:
        if not self.is_alive:
            return
        encoded = _encode(message)

        def arrive() -> None:
            owner = self.hub.owners.get(partition)
            if owner is not None and owner.is_alive:
                self.hub.note(f"{type(message).__name__} for {partition} of {len(encoded)} bytes")
                owner.shard.receive(cast("PartitionTraffic", _to_shard.decode(encoded)))

        self.hub.air.carry(arrive)

    def submit(self, call: Forward, answered: Callable[[Answer], None]) -> None:
        """Take a client's call over the network, and bring the answer back over it."""
        encoded = _encode(call)

        def answer(result: Answer) -> None:
            if self.is_alive:
                back = _encode(result)
                self.hub.air.carry(lambda: answered(_from_shard.decode(back)))

        def arrive() -> None:
            if self.is_alive:
                self.shard.submit(cast("Forward", _to_shard.decode(encoded)), answer)

        self.hub.air.carry(arrive)

    def opened(self, partition: int, epoch: int) -> None:
        self.hub.note(f"{self.index} opened {partition} under {epoch}")
        self.hub.on_opened(self.shard.hosts[partition])

    def released(self, partition: int, epoch: int) -> None:
        self.hub.note(f"{self.index} released {partition} under {epoch}")
        self.hub.on_released(self, partition, epoch)

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        if self.is_alive:
            self.hub.on_lost(self, partition, epoch, broken)


class Hub:
    """Partitions, the shards that host them, and what is between them. Use `async with`."""

    def __init__(  # noqa: PLR0913
        self,
        app: App,
        *,
        seed: int = 0,
        shards: int = 2,
        partitions: int = 4,
        settings: Settings | None = None,
        plan: Plan | None = None,
        latency_s: tuple[float, float] = (0.001, 0.003),
        weather: Weather | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self.app = app
        self.lease_s = lease_s
        self.partitions = partitions
        self.settings = settings or Settings()
        self.random = Random(seed)  # noqa: S311
        self.air = Air(self.random, weather or Weather())
        self.calls = Calls(self.random, plan, latency_s)
        self.trace: list[str] = []
        self.crashes = 0
        self.broken: list[str] = []
        """Why partitions or shards stopped by themselves: none should."""
        self.members: list[Member] = []
        self.owners: dict[int, Member] = {}
        self.on_opened: Callable[[PartitionHost], None] = lambda _: None
        self.on_crash: Callable[[Member], None] = lambda _: None
        self.evicts = False
        """Whether idle instances are evicted as soon as the store has them."""
        self.zombies = 0
        """Owners that were deposed and do not know yet. They may keep clients waiting."""
        self.tracer: Tracer | None = None
        """What shards that start from now on trace with."""
        self.moves = True
        """Whether partitions given up are assigned again."""
        self._shards = shards
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = copy_context()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._context = copy_context()
        self.store = MemoryStore(lambda: true_now_us(loop))
        await self.store.open()
        await self.store.create(self.partitions)
        self.members = [Member(self, index) for index in range(self._shards)]
        self.spawn(self._renew())
        for partition in range(self.partitions):
            await self.assign(partition, self.members[partition % self._shards])
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members:
            member.is_alive = False
            member.store.cut()
            for host in member.shard.hosts.values():
                host.closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, main: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Run something as long as the hub lives; it should not fail. Return what ends it."""
        # Whoever causes it: in a context of its own hub, by which tests tell housekeeping.
        context = self._context.copy()
        task = asyncio.get_running_loop().create_task(main, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task.cancel

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken.append(repr(error))

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{asyncio.get_running_loop().time():.6f} {what}")

    # -- ownership -------------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            for member in self.members:
                if member.is_alive:
                    member.renew()
            await asyncio.sleep(min(LEASE_S, self.lease_s) / 3)

    async def assign(self, partition: int, member: Member) -> None:
        """Claim a partition under a new epoch, and have a shard serve it."""
        seen = (await self.store.view()).partitions[partition]
        epoch = await self.store.claim(partition, seen.epoch, OWNER)
        assert epoch is not None
        self.note(f"{member.index} is assigned {partition} under {epoch}")
        self.owners[partition] = member
        member.shard.assign(partition, epoch)

    def crash(self, member: Member) -> None:
        """End a shard without a word, and start another in its place."""
        if not member.is_alive:
            return
        self.note(f"{member.index} crashes")
        self.crashes += 1
        member.is_alive = False
        member.store.cut()
        member.cancel()
        self.on_crash(member)
        self.spawn(self._replace(member))

    async def _replace(self, dead: Member) -> None:
        await asyncio.sleep(TAKE_OVER_S)
        new = Member(self, dead.index)
        self.members[self.members.index(dead)] = new
        for partition, owner in sorted(self.owners.items()):
            if owner is dead:
                others = [each for each in self.members if each.is_alive]
                await self.assign(partition, self.random.choice(others))

    async def depose(self, partition: int) -> None:
        """Give a partition to the next shard while the old owner does not know yet."""
        old = self.owners[partition]
        others = [each for each in self.members if each.is_alive and each is not old]
        if others:
            await self.assign(partition, self.random.choice(others))

    def revoke(self, partition: int) -> None:
        """Have a partition handed over gracefully; it goes to the next shard."""
        self.owners[partition].shard.revoke(partition)

    def on_released(self, member: Member, partition: int, epoch: int) -> None:
        """Assign what was released to the next shard."""
        del epoch
        if self.moves and self.owners.get(partition) is member:
            following = self.members[(member.index + 1) % len(self.members)]
            self.spawn(self.assign(partition, following))

    def on_lost(self, member: Member, partition: int, epoch: int, broken: str) -> None:
        """Note why, and claim it anew if nobody else has."""
        self.note(f"{member.index} lost {partition} under {epoch}: {broken}")
        if broken:
            self.broken.append(broken)
        elif self.moves and self.owners.get(partition) is member:
            self.spawn(self._reclaim(member, partition, epoch))

    async def _reclaim(self, member: Member, partition: int, epoch: int) -> None:
        await asyncio.sleep(TAKE_OVER_S)
        if (await self.store.view()).partitions[partition].epoch == epoch and member.is_alive:
            await self.assign(partition, member)

    # -- looking ---------------------------------------------------------------------------------

    def host_of(self, partition: int) -> PartitionHost | None:
        """Return the partition at work, if it is."""
        owner = self.owners.get(partition)
        return owner.shard.hosts.get(partition) if owner is not None and owner.is_alive else None

    @property
    def is_quiet(self) -> bool:
        """Whether every partition is served, and has nothing to do but wait for timers."""
        hosts = [self.host_of(partition) for partition in range(self.partitions)]
        return not self._holds_starts and all(
            host is not None and _is_quiet(host) for host in hosts
        )

    @property
    def is_waiting(self) -> bool:
        """As `is_quiet`, but activities may be running."""
        hosts = [self.host_of(partition) for partition in range(self.partitions)]
        return not (self.zombies or self._holds_starts) and all(
            host is not None and _is_idle(host) for host in hosts
        )

    @property
    def _holds_starts(self) -> bool:
        return any(member.shard.starts_held for member in self.members)

    @property
    def next_due(self) -> int | None:
        """Return when the next timer of any partition is due, µs."""
        dues = [host.core.timers.next_due() for host in self._hosts()]
        return min((due for due in dues if due is not None), default=None)

    @property
    def waiting(self) -> str:
        """Name the instances that wait, and why those are parked that are."""
        names = [
            f"{instance.name} {instance_id!r}"
            + (f" (parked: {instance.parked})" if instance.parked else "")
            for host in self._hosts()
            for instance_id, instance in host.core.instances.items()
            if not instance.status.is_final
        ]
        return f"waiting: {', '.join(sorted(names)) or 'no instance'}"

    def _hosts(self) -> list[PartitionHost]:
        hosts = [self.host_of(partition) for partition in range(self.partitions)]
        return [host for host in hosts if host is not None]

    async def until(self, condition: Callable[[], object], within_s: float = 60.0) -> None:
        """Wait, in virtual time, until something is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not condition():  # noqa: ASYNC110 - in virtual time
                    await asyncio.sleep(0.005)
        assert condition(), f"not within {within_s} s; broken: {self.broken}"

    async def quiet(self, within_s: float = 120.0) -> None:
        """Wait until nothing is under way, and everything is in the store."""

        def is_quiet() -> bool:
            for member in self.members:
                for host in member.shard.hosts.values():
                    if host.core.entries:  # an acknowledgement may wait for the next record
                        member.shard.wake(host, work=False)
            return self.is_quiet

        await self.until(is_quiet, within_s)


def _is_quiet(host: PartitionHost) -> bool:
    return (
        _is_idle(host)
        and not host.core.entries
        and not any(
            pending.retry_at is None
            for instance in host.core.instances.values()
            for pending in instance.pending.values()
        )
    )


def _is_idle(host: PartitionHost) -> bool:
    core = host.core
    return (
        not (host.closed or host.draining or core.effects or core.out)
        and all(isinstance(entry, _UNHURRIED) for entry in core.entries)
        and not (core.has_turns)
        and host.release.durable == host.release.sealed
        and not host.loader.is_busy
        and not any(lane.messages for lane in core.state.lanes.values())
    )
