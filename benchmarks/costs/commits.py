"""Every commit that `hello` needs when it is alone, and what is in each.

    python -m benchmarks.costs.commits [--n 100] [--pause-s 0] [--speculative]

Runs `hello` on an embedded runtime, one after the other, with a store that notes what it is
asked to write. Prints the commits of the last one, and how many of each kind one takes on
average. A pause between them leaves room for the checkpoints that belong to each.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvloop

from shardrt import Runtime
from shardrt.bench import app
from shardrt.bench.workloads.hello import EXPECTED, hello, hello_speculative
from shardrt.core.codec import decode_record
from shardrt.core.entries import Arrived, Stepped
from shardrt.store.base import Append, Checkpoint
from shardrt.store.postgres.store import PostgresStore
from shardrt.testing.postgres import PostgresServer

CONNECTIONS = 4
SETTLE_S = 2.5
"""Until the checkpoints of the last one are written, and its journal is cut."""


class Noting(PostgresStore):
    """Notes what each commit holds."""

    def __init__(self, url: str, *, unsafe: bool = False) -> None:
        super().__init__(url, connections=CONNECTIONS, unsafe=unsafe)
        self.commits: list[str] = []
        self.bytes = 0

    async def append(self, batch: Sequence[Append]) -> set[int]:
        records = [decode_record(each.record) for each in batch]
        self.commits.append("append: " + " | ".join(map(described, records)))
        self.bytes += sum(len(each.record) for each in batch)
        return await super().append(batch)

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        self.commits.append("checkpoint")
        await super().checkpoint(checkpoint)

    async def truncate(self, partition: int, epoch: int, lsn: int) -> int:
        self.commits.append("truncate")
        return await super().truncate(partition, epoch, lsn)


def described(entries: Sequence[object]) -> str:
    """Return what a record says, such as `Arrived(TaskCompleted) Stepped(TaskScheduled)`."""
    texts = []
    for entry in entries:
        inner: Sequence[object] = ()
        if isinstance(entry, Arrived):
            inner = [entry.event]
        elif isinstance(entry, Stepped):
            inner = [*entry.actions, *([entry.outcome] if entry.outcome else [])]
        of = ", ".join(type(each).__name__ for each in inner)
        texts.append(type(entry).__name__ + (f"({of})" if of else ""))
    return " ".join(texts)


async def trace(
    dsn: str,
    n: int,
    *,
    pause_s: float = 0.0,
    speculative: bool = False,
    settle_s: float = SETTLE_S,
    unsafe: bool = False,
) -> dict[str, Any]:
    """Return the commits of the last of `n`, and how many of each kind one took."""
    orchestrator = hello_speculative if speculative else hello
    store = Noting(dsn, unsafe=unsafe)
    kinds: Counter[str] = Counter()
    last: list[str] = []
    async with Runtime(app, store=store) as runtime:
        for _ in range(n):
            store.commits.clear()
            assert await runtime.client.execute(orchestrator) == EXPECTED
            await asyncio.sleep(pause_s)
            kinds.update(each.partition(":")[0] for each in store.commits)
            last = list(store.commits)
        store.commits.clear()
        await asyncio.sleep(settle_s)
        kinds.update(each.partition(":")[0] for each in store.commits)
        record_bytes = round(store.bytes / n)
    each = {kind: round(count / n, 2) for kind, count in sorted(kinds.items())}
    return {"n": n, "commits_each": each, "record_bytes_each": record_bytes, "the_last": last}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--speculative", action="store_true")
    given = parser.parse_args()
    with PostgresServer() as server:
        tracing = trace(server.dsn, given.n, pause_s=given.pause_s, speculative=given.speculative)
        print(json.dumps(uvloop.run(tracing), indent=1))
