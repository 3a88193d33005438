"""What partitions of one shard share, and where their answers go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from shardrt.core import requests as r
from shardrt.links.messages import Answer

if TYPE_CHECKING:
    from shardrt.core.state import Resident
    from shardrt.host.activity_pool import ActivityPool
    from shardrt.host.clock import Clock
    from shardrt.host.gathering import Gathering
    from shardrt.host.meter import Meter
    from shardrt.host.notices import Notices
    from shardrt.host.partition_host import PartitionHost
    from shardrt.host.ports import Network
    from shardrt.host.turns import Turns
    from shardrt.store.base import Store

Answering = Callable[[Answer], None]


class To(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Where the answer to a request goes. No two are equal."""

    seq: int
    answer: Answering
    counted: bool
    bytes: int


def payload_bytes(request: r.Request) -> int:
    """Return the size of what a request brings."""
    if isinstance(request, r.Start):
        return len(memoryview(request.input))
    if isinstance(request, r.Raise):
        return len(memoryview(request.data))
    if isinstance(request, (r.SignalEntity, r.CallEntity)):
        return len(memoryview(request.input))
    return 0


class Surroundings(Protocol):
    """What partitions of one shard have in common."""

    store: Store
    gathering: Gathering
    clock: Clock
    network: Network
    draw: Callable[[], float]
    """Random numbers from [0, 1), for jitter."""
    pool: ActivityPool
    transactional: frozenset[str]
    """Activities that commit their outcomes themselves."""
    turns: Turns
    meter: Meter
    notices: Notices
    unsaved_bytes_max: int
    """A partition with so much journal in no checkpoint stands still."""
    requests_in_flight: int
    bytes_in_flight: int

    def wake(self, host: PartitionHost, *, work: bool = True) -> None:
        """Run the partition's turns soon, and commit what it has written."""
        ...

    def admitted(self, host: PartitionHost, resident: Resident, state_bytes: int) -> None:
        """Note that an instance or entity was loaded from the store."""
        ...

    def gone(self, host: PartitionHost, broken: str) -> None:
        """Note that a partition has been discarded."""
        ...

    def may_answer(self) -> bool:
        """Whether the lease still holds, so that reads are not stale."""
        ...
