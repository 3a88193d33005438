"""A hub in memory with hosts that can crash, freeze and be cut off from the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.cluster.holdings import Terms
from shardrt.cluster.membership import Membership
from shardrt.cluster.renewal import Identities
from shardrt.errors import CommitUnknown, ShardrtError, StoreUnavailable
from shardrt.store.base import Host as Row
from shardrt.store.memory import MemoryStore
from tests.cluster.virtual_time import LoopClock, pass_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shardrt.store.base import View

START_US = 1_700_000_000_000_000
TTL_S = 10.0


class FaultyStore:
    """Passes on to a store, unless it is away or told to lose an answer."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.away = False
        self.hangs = False
        self.unknown: set[str] = set()
        """Methods whose next call takes effect and then fails."""
        self.calls: Counter[str] = Counter()
        self.identity = ""
        """Of the server, as renewals tell it."""

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            self.calls[name] += 1
            if self.hangs:
                await asyncio.Event().wait()
            if self.away:
                raise StoreUnavailable("the store is away")
            result = await getattr(self._store, name)(*args)
            if name == "renew":
                result = msgspec.structs.replace(result, identity=self.identity)
            if name in self.unknown:
                self.unknown.discard(name)
                raise CommitUnknown("the connection broke")
            return result

        return call


class FakeShards:
    """A sink that does at once what it is told, unless told otherwise."""

    def __init__(self) -> None:
        self.member: Membership
        self.assigned: dict[int, int] = {}
        self.log: list[tuple[str, int]] = []
        self.until_s = 0.0
        self.opens = True
        self.drains = True
        self.forgets = True

    def assign(self, partition: int, epoch: int) -> None:
        self.assigned[partition] = epoch
        self.log.append(("assign", partition))
        if self.opens:
            self.member.opened(partition, epoch)

    def revoke(self, partition: int, epoch: int) -> None:
        self.log.append(("revoke", partition))
        if self.drains:
            del self.assigned[partition]
            self.member.released(partition, epoch)

    def discard(self, partition: int, epoch: int) -> None:
        self.log.append(("discard", partition))
        if self.forgets:
            self.assigned.pop(partition, None)
            self.member.released(partition, epoch)

    def lease(self, until_s: float, clock_offset: int) -> None:
        self.until_s = until_s
        self.clock_offset = clock_offset

    def looked(self, view: View) -> None:
        pass

    def drain(self, grace_s: float) -> None:
        for partition, epoch in list(self.assigned.items()):
            self.revoke(partition, epoch)


class FakeHost:
    """One member of the hub, with its own store connection."""

    def __init__(
        self, hub: FakeHub, host_id: str, shards: int, dead: Callable[[str], bool]
    ) -> None:
        self.store = FaultyStore(hub.store)
        self.shards = FakeShards()
        self.member = Membership(
            Row(host_id=host_id, incarnation="", address=f"http://{host_id}", shards=shards),
            store=self.store,
            sink=self.shards,
            clock=LoopClock(),
            terms=Terms(ttl_s=TTL_S),
            identities=Identities(new=hub.new_incarnation, is_dead=dead),
        )
        self.shards.member = self.member
        self.task = asyncio.get_running_loop().create_task(self.member.run())

    @property
    def owned(self) -> set[int]:
        return set(self.shards.assigned)

    @property
    def may_serve(self) -> bool:
        return asyncio.get_running_loop().time() < self.shards.until_s

    async def crash(self) -> None:
        """End without a word."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ShardrtError):
            await self.task


class FakeHub:
    """The store, and everybody who takes part."""

    def __init__(self, store: MemoryStore, partitions: int) -> None:
        self.store = store
        self.partitions = partitions
        self.hosts: list[FakeHost] = []
        self._incarnations = 0

    def new_incarnation(self) -> str:
        self._incarnations += 1
        return f"i{self._incarnations}"

    def host(
        self, host_id: str, shards: int = 1, dead: Callable[[str], bool] = lambda _: False
    ) -> FakeHost:
        host = FakeHost(self, host_id, shards, dead)
        self.hosts.append(host)
        return host

    async def owners(self) -> list[str | None]:
        return [
            (row.owner or "").split("/")[0] or None for row in (await self.store.view()).partitions
        ]

    async def epochs(self) -> list[int]:
        return [row.epoch for row in (await self.store.view()).partitions]

    async def until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Wait, in virtual time, and return how long it took."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        async with asyncio.timeout(within_s):
            while not condition():
                await pass_time(0.01)
        return loop.time() - start_s


@contextlib.asynccontextmanager
async def a_hub(partitions: int = 8) -> AsyncIterator[FakeHub]:
    loop = asyncio.get_running_loop()
    store = MemoryStore(lambda: START_US + round(loop.time() * 1_000_000))
    await store.open()
    await store.create(partitions)
    hub = FakeHub(store, partitions)
    try:
        yield hub
    finally:
        for host in hub.hosts:
            await host.crash()
