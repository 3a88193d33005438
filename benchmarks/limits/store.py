"""What a store can do at most: appends back to back, and checkpoints.

    python -m benchmarks.limits.store postgresql://… [--partitions 8] [--record-bytes 2000]

Prints a line of JSON per measurement, with CPU of this process (not of the server) per call.
The hub must be one to throw away.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

import uvloop

from benchmarks.limits.journals import Journals, text_of
from shardrt.store.base import Checkpoint, HistoryChunk, InstanceRow
from shardrt.store.factory import make_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.store.base import Store


class Bench:
    def __init__(self, store: Store, options: argparse.Namespace) -> None:
        self.store = store
        self.options = options
        self.journals = Journals(store, options.partitions, options.record_bytes)

    async def run(self) -> None:
        await self.journals.claim()
        await self.journals.append(50)
        await self.measure("append", self.options.appends, self.journals.append)
        await self.checkpoints(1)
        await self.measure("checkpoint", self.options.checkpoints, self.checkpoints)

    async def measure(self, name: str, calls: int, run: Callable[[int], Awaitable[None]]) -> None:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await run(calls)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        options = self.options
        size = (
            {"partitions": options.partitions, "record_bytes": options.record_bytes}
            if name == "append"
            else {"rows": options.rows, "rows_s": round(calls * options.rows / wall_s)}
        )
        per_call = {
            "cpu_us_per_call": round(cpu_s / calls * 1e6),
            "wall_us_per_call": round(wall_s / calls * 1e6),
        }
        print(json.dumps({"measured": name, "calls": calls, **size, **per_call}))

    async def checkpoints(self, calls: int) -> None:
        """Each writes new instances that have started and ended, as `hello` does."""
        epochs, lsns = self.journals.epochs, self.journals.lsns
        for call in range(calls):
            for partition, (epoch, lsn) in enumerate(zip(epochs, lsns, strict=True)):
                await self.store.truncate(partition, epoch, lsn)
            now = time.time_ns() // 1000
            ids = [f"{now}-{call}-{number}" for number in range(self.options.rows)]
            await self.store.checkpoint(
                Checkpoint(
                    partition=0,
                    epoch=epochs[0],
                    lsn=lsns[0],
                    state=text_of(2000),
                    upserts=[completed(each, now) for each in ids],
                    chunks=[HistoryChunk(each, "e1", 0, text_of(1500)) for each in ids],
                )
            )


def completed(instance_id: str, now: int) -> InstanceRow:
    return InstanceRow(
        instance_id=instance_id,
        execution_id="e1",
        name="hello",
        version=None,
        status="Completed",
        created_at=now,
        updated_at=now,
        completed_at=now,
        parent_id=None,
        tags=None,
        next_due=None,
        active=False,
        state=text_of(300),
    )


async def main(options: argparse.Namespace) -> None:
    store = make_store(options.store)
    await store.open()
    try:
        await store.create(0)
        await Bench(store, options).run()
    finally:
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="URL of a store to throw away")
    parser.add_argument("--partitions", type=int, default=8, help="records per append")
    parser.add_argument("--record-bytes", type=int, default=2000)
    parser.add_argument("--appends", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000, help="instances per checkpoint")
    parser.add_argument("--checkpoints", type=int, default=10)
    uvloop.run(main(parser.parse_args()))
