"""Journals of a hub, driven without a host: each append has a record for each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.store.base import Append, Checkpoint

if TYPE_CHECKING:
    from shardrt.store.base import Store

OWNER = "bench/1"


class Journals:
    """Those of the first partitions of a hub. `claim` comes first."""

    def __init__(self, store: Store, count: int, record_bytes: int) -> None:
        self.store = store
        self.count = count
        self.record = text_of(record_bytes)
        self.epochs: list[int] = []
        self.lsns: list[int] = []
        """What was appended last."""

    async def claim(self) -> None:
        view = await self.store.view()
        for each in view.partitions[: self.count]:
            epoch = await self.store.claim(each.partition, each.epoch, OWNER)
            assert epoch is not None
            self.epochs.append(epoch)
            self.lsns.append(each.commit_lsn)
        assert len(self.epochs) == self.count, "the hub has so many"

    async def append(self, calls: int) -> None:
        """Commit so many times, back to back."""
        for _ in range(calls):
            self.lsns = [lsn + 1 for lsn in self.lsns]
            owned = enumerate(zip(self.epochs, self.lsns, strict=True))
            batch = [
                Append(partition, epoch, lsn, self.record) for partition, (epoch, lsn) in owned
            ]
            assert len(await self.store.append(batch)) == len(batch)

    async def cut(self) -> None:
        """Delete all records, each journal's behind a checkpoint."""
        for partition, (epoch, lsn) in enumerate(zip(self.epochs, self.lsns, strict=True)):
            at = Checkpoint(partition=partition, epoch=epoch, lsn=lsn, state=b"")
            await self.store.checkpoint(at)
            await self.store.truncate(partition, epoch, lsn)


def text_of(size: int) -> bytes:
    """JSON-like bytes, about as compressible as real ones."""
    parts = (b'{"type":"TaskCompleted","id":%d,"result":"Hello, %x!"},' % (n, n * 2654435761)
             for n in range(size // 50 + 1))  # fmt: skip
    return b"".join(parts)[:size]
