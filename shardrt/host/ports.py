"""What a shard needs of its surroundings, and what it tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shardrt.links.messages import PartitionTraffic


class Network(Protocol):
    """Carries messages between partitions. It may lose, repeat or delay them."""

    def send(self, partition: int, message: PartitionTraffic) -> None:
        """Send towards the owner of `partition`, wherever it is; never block, never raise."""
        ...


class Owner(Protocol):
    """Whoever assigned the partitions (a supervisor) and wants to know what became of them."""

    def opened(self, partition: int, epoch: int) -> None:
        """Tell that the partition has recovered and serves."""
        ...

    def released(self, partition: int, epoch: int) -> None:
        """Tell that the partition was drained and checkpointed after a `revoke`."""
        ...

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        """Tell that the partition was discarded; `broken` says why if it was not fenced."""
        ...
