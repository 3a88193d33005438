"""Who calls while hosts come and go, and who watches where partitions are.

Every partition has a caller of its own: an entity in it counts, one durable call after the other.
Others run `hello`. Whatever of that fails is a failed request. Where a partition is, the store
tells; it *serves elsewhere* once a call has been answered after it has another owner.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardrt import Client
from shardrt.bench.workloads.counter import Counter
from shardrt.bench.workloads.hello import EXPECTED, hello
from shardrt.errors import ShardrtError
from shardrt.store.base import Leases, View

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POLL_S = 0.02
PROBE_PAUSE_S = 0.02


@dataclass
class Calls:
    """What came of all calls so far."""

    done: int = 0
    failures: list[str] = field(default_factory=list)
    """The first line of each."""
    answered_s: dict[int, float] = field(default_factory=dict)
    """For each partition: when its caller was answered last."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of each probe."""

    def longest_s(self, since_s: float) -> float:
        """Return the longest that a probe took which ended after this moment."""
        return max((end - begin for begin, end in self.waits if end >= since_s), default=0.0)


class Callers:
    """Call until cancelled."""

    def __init__(self, clients: Sequence[Client], partitions: int, loaders: int) -> None:
        self.calls = Calls()
        self._clients = itertools.cycle(clients)
        self._partitions = partitions
        self._loaders = loaders

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for partition in range(self._partitions):
                group.create_task(self._probe(next(self._clients), partition))
            for _ in range(self._loaders):
                group.create_task(self._load(next(self._clients)))

    async def _probe(self, client: Client, partition: int) -> None:
        entity = f"@bench.counter@probe!{partition}"
        while True:
            begin_s = time.monotonic()
            try:
                await client.call_entity(entity, Counter.add, 1)
            except ShardrtError as error:
                self.calls.failures.append(f"{type(error).__name__}: {error}")
            else:
                end_s = time.monotonic()
                self.calls.done += 1
                self.calls.answered_s[partition] = end_s
                self.calls.waits.append((begin_s, end_s))
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _load(self, client: Client) -> None:
        while True:
            try:
                result = await (await client.start(hello)).result()
            except ShardrtError as error:
                self.calls.failures.append(f"{type(error).__name__}: {error}")
            else:
                assert result == EXPECTED, result
                self.calls.done += 1


class Watch:
    """Looks at the hub again and again; `run` until cancelled."""

    def __init__(self, store: Leases) -> None:
        self._store = store
        self.view: View | None = None
        self.looked = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.view = await self._store.view()
            self.looked.set()
            await asyncio.sleep(POLL_S)

    async def look(self) -> View:
        """Return the next view."""
        self.looked.clear()
        await self.looked.wait()
        assert self.view is not None
        return self.view


def partitions_of(view: View, host_id: str) -> set[int]:
    """Return what a host owns."""
    return {p.partition for p in view.partitions if (p.owner or "").startswith(f"{host_id}/")}


def is_there(view: View, host_id: str) -> bool:
    return any(h.host_id == host_id and h.expires_at > view.now for h in view.hosts)


def is_even(view: View, hosts: Sequence[str]) -> bool:
    """Tell whether hosts with equal shards have equal shares."""
    counts = [len(partitions_of(view, host)) for host in hosts]
    return sum(counts) == len(view.partitions) and max(counts) - min(counts) <= 1


@asynccontextmanager
async def running(*runs: "Callers | Watch") -> "AsyncIterator[None]":
    """Run these for the time of the block."""
    tasks = [asyncio.ensure_future(each.run()) for each in runs]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
