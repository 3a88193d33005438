"""Which shard process hosts which partition: the `Sink` of a supervisor's membership.

A partition stays with its shard. When that shard dies its partitions wait for the replacement
if that comes at once, else the other shards take them; when the replacement is up, partitions
move to it until the load is even again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from shardrt.cluster.targets import routes_to_hosts
from shardrt.links import control
from shardrt.supervisor.policy import choose_shard, surplus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shardrt.store.base import View
    from shardrt.supervisor.slot import Slot

logger = logging.getLogger(__name__)

SOON_S = 1.0
"""A replacement that starts within this time is waited for."""


class Released(Protocol):
    """Who is told that a partition is hosted nowhere (part of `host.ports.Owner`)."""

    def released(self, partition: int, epoch: int) -> None: ...


class Shards:
    """Assigns partitions to shard processes. Implements `cluster.ownership.Sink`."""

    def __init__(
        self,
        slots: Sequence[Slot],
        blamed: Callable[[int], list[control.Blamed]] = lambda _: [],
        watches: Callable[[], bool] = lambda: False,
    ) -> None:
        self._watches = watches
        """Whether shards should note what they run."""
        self._blamed = blamed
        """What the next owner of a partition must know about its code."""
        self.slots = slots
        self.view: View | None = None
        self.owner: Released
        """Set before the first call."""
        self.on_look: Callable[[], None] = lambda: None
        """Called when there is a new view."""
        self._hosted: dict[int, tuple[int, int]] = {}
        """Partition → (shard index, epoch), as the shard was told."""
        self._parked: dict[int, int] = {}
        """Partition → epoch: to be assigned as soon as there is a shard for it."""
        self._home: dict[int, int] = {}
        """Partition → the shard that hosted it last."""
        self._lease: control.Lease | None = None
        self._draining = False

    # -- cluster.ownership.Sink -------------------------------------------------------------

    def assign(self, partition: int, epoch: int) -> None:
        self._parked[partition] = epoch
        self.place()

    def revoke(self, partition: int, epoch: int) -> None:
        if self._parked.pop(partition, None) is not None or partition not in self._hosted:
            self.owner.released(partition, epoch)
            return
        self._tell(partition, control.Revoke(partition, epoch))

    def discard(self, partition: int, epoch: int) -> None:
        self._parked.pop(partition, None)
        if partition in self._hosted:
            self._tell(partition, control.Discard(partition, epoch))
        else:
            self.owner.released(partition, epoch)

    def lease(self, until_s: float, clock_offset: int) -> None:
        self._lease = control.Lease(until_s, clock_offset)
        for slot in self.slots:
            if slot.listens:  # also while it drains
                slot.send(self._lease)

    def looked(self, view: View) -> None:
        self.view = view
        self.on_look()

    def drain(self, grace_s: float) -> None:
        self._draining = True
        for partition, epoch in list(self._parked.items()):
            self.revoke(partition, epoch)
        for slot in self.slots:
            if slot.child is not None:
                slot.child.stop(grace_s)

    # -- children ---------------------------------------------------------------------------

    def came_up(self, slot: Slot) -> None:
        """Give a shard that is ready now the lease and what waited for it."""
        if self._lease is not None:
            slot.send(self._lease)
        self.place()

    def went_down(self, slot: Slot) -> list[int]:
        """Return, and forget, what a dead shard hosted."""
        partitions = [p for p, (index, _) in self._hosted.items() if index == slot.index]
        for partition in partitions:
            del self._hosted[partition]
        return partitions

    def left(self, slot: Slot, partition: int, epoch: int) -> None:
        """Note that a shard said `Released` or `Lost`."""
        if self._hosted.get(partition) == (slot.index, epoch):
            del self._hosted[partition]

    def place(self) -> None:
        """Assign what is parked, as far as there are shards for it."""
        loads = self._loads()
        if self._draining or not loads:
            return
        for partition, epoch in list(self._parked.items()):
            index = self._shard_for(partition, loads)
            if index is None:
                continue
            del self._parked[partition]
            self._hosted[partition] = (index, epoch)
            self._home[partition] = index
            loads[index] += 1
            blamed = self._blamed(partition)
            self._tell(partition, control.Assign(partition, epoch, blamed, self._watches()))

    def can_serve(self, within_s: float, *, could: bool) -> bool:
        """Whether a shard serves, or, if one `could` so far, is there or comes within that time.

        If none could, for they ended again and again, one must have served for that time before
        partitions are taken back.
        """
        if could:
            return any(slot.child or slot.comes_soon(within_s) for slot in self.slots)
        return any(slot.serves and slot.uptime_s >= within_s for slot in self.slots)

    def uneven(self) -> list[int]:
        """Return which partitions should move to other shards; they will on `assign`."""
        if self._draining or self._parked:
            return []
        hosted: dict[int, list[int]] = {slot.index: [] for slot in self._ready()}
        for partition, (index, _) in self._hosted.items():
            if index in hosted:
                hosted[index].append(partition)
        partitions = surplus(hosted)
        for partition in partitions:
            self._home.pop(partition, None)
        return partitions

    def targets(self, serving: Mapping[int, int], me: str) -> list[str | None]:
        """Return the route to each partition: a shard's socket, another host, or None.

        Args:
            serving: epochs of the partitions that shards of this host serve.
            me: the owner that this host is.
        """
        if self.view is None:
            return []
        targets = routes_to_hosts(self.view, me)
        for partition in range(len(targets)):
            hosted = self._hosted.get(partition)
            if hosted is not None and serving.get(partition) == hosted[1]:
                targets[partition] = self.slots[hosted[0]].socket
        return targets

    def hosted_by(self, slot: Slot) -> list[int]:
        return sorted(p for p, (index, _) in self._hosted.items() if index == slot.index)

    # ---------------------------------------------------------------------------------------

    def _ready(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.serves]

    def _loads(self) -> dict[int, int]:
        loads = {slot.index: 0 for slot in self._ready()}
        for index, _ in self._hosted.values():
            if index in loads:
                loads[index] += 1
        return loads

    def _shard_for(self, partition: int, loads: Mapping[int, int]) -> int | None:
        home = self._home.get(partition)
        if home in loads:
            return home
        if home is not None and self.slots[home].comes_soon(SOON_S):
            return None
        return choose_shard(partition, loads)

    def _tell(self, partition: int, message: control.ToChild) -> None:
        index, _ = self._hosted[partition]
        self.slots[index].send(message)
