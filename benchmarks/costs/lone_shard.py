"""A shard and nothing else: no gateway, no link, no database.

    python -m benchmarks.costs.lone_shard --partitions 16 --in-flight 500 --n 1000

Runs `hello` in a closed loop, in virtual time: whatever happens happens in the same order each
time, so that its instructions can be counted; see `instructions`.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from zlib import crc32

from shardrt.bench import app
from shardrt.bench.errors import check
from shardrt.bench.workloads.hello import EXPECTED
from shardrt.config import Settings
from shardrt.core import requests as r
from shardrt.host.clock import Clock
from shardrt.host.memory import settle_memory
from shardrt.host.shard import Shard
from shardrt.links.messages import Answer, Forward, PartitionTraffic
from shardrt.store.base import Append
from shardrt.store.memory import MemoryStore
from shardrt.testing.virtual import VirtualClock, run_virtual, true_now_us

COMMIT_S = 0.01
"""A commit takes so long, as where others want the database, too."""
EVER_S = 1e9
OWNER = "host/1"


class Store(MemoryStore):
    """Takes its time, and counts."""

    commits = 0
    records = 0
    commit_s = COMMIT_S

    async def append(self, batch: Sequence[Append]) -> set[int]:
        await asyncio.sleep(self.commit_s)
        self.commits += 1
        self.records += len(batch)
        return await super().append(batch)


class Alone:
    """What is around the shard: it keeps what it opens, and has nobody to talk to."""

    def __init__(self) -> None:
        self.opened_count = 0

    def opened(self, _partition: int, _epoch: int) -> None:
        self.opened_count += 1

    def released(self, partition: int, _epoch: int) -> None:
        raise AssertionError(f"nobody takes partition {partition}")

    def lost(self, partition: int, _epoch: int, broken: str) -> None:
        raise AssertionError(f"partition {partition} is lost: {broken}")

    def send(self, partition: int, _message: PartitionTraffic) -> None:
        raise AssertionError(f"an instance sends something to partition {partition}")


class Client:
    """One session that starts instances and waits for their ends, as a client does."""

    def __init__(self, shard: Shard, partitions: int) -> None:
        self._shard = shard
        self._partitions = partitions
        self._seqs = itertools.count(1)
        self._open: dict[int, None] = {}

    async def run(self, number: int) -> None:
        # Ids in the order of time, spread over the partitions as by a hash.
        instance_id = f"{number:012d}"
        seq = next(self._seqs)
        self._open[seq] = None
        await self._ask(seq, instance_id, r.Start("bench.hello", fresh=True))
        del self._open[seq]
        ended = await self._ask(next(self._seqs), instance_id, r.Wait())
        check(json.loads(bytes(ended.result))["output"], EXPECTED, instance_id)

    async def _ask(self, seq: int, instance_id: str, request: r.Request) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        origin = r.Origin("client", seq, next(iter(self._open), seq))
        partition = crc32(instance_id.encode()) % self._partitions
        call = Forward(seq, partition, origin, instance_id, request)
        self._shard.submit(call, answered.set_result)
        answer = await answered
        assert answer.refusal is None, answer.refusal.message
        return answer


async def load(  # noqa: PLR0913 - one way to run it for each who counts
    partitions: int,
    in_flight: int,
    n: int,
    *,
    commit_s: float = COMMIT_S,
    clock: Clock | None = None,
    settings: Settings | None = None,
    warmup: int = 0,
) -> dict[str, float]:
    """Run `n`, so many at a time; return commits, records and CPU for each.

    Args:
        partitions: of the shard.
        in_flight: instances at a time.
        n: instances that count.
        commit_s: what a commit takes.
        clock: another than that of a virtual loop.
        settings: of the shard.
        warmup: instances before.
    """
    loop = asyncio.get_running_loop()
    store = Store((lambda: true_now_us(loop)) if clock is None else clock.now)
    store.commit_s = commit_s
    await store.open()
    await store.create(partitions)
    alone = Alone()
    shard = Shard(
        settings=settings or Settings(),
        app=app,
        store=store,
        clock=clock or VirtualClock(),
        network=alone,
        owner=alone,
        partitions=partitions,
        name="host",
    )
    running = loop.create_task(shard.run())
    shard.extend_lease(EVER_S)
    for partition in range(partitions):
        epoch = await store.claim(partition, 0, OWNER)
        assert epoch is not None
        shard.assign(partition, epoch)
    while alone.opened_count < partitions:  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(COMMIT_S)
    settle_memory()
    client = Client(shard, partitions)
    numbers = itertools.count()
    await call_all(client, itertools.islice(numbers, warmup), in_flight)
    store.commits = store.records = 0
    cpu_s = time.process_time()
    await call_all(client, itertools.islice(numbers, n), in_flight)
    cpu_s = time.process_time() - cpu_s
    for host in shard.hosts.values():
        host.closing = True
    running.cancel()
    await asyncio.wait([running])
    return {
        "commits_each": store.commits / n,
        "records_each": store.records / n,
        "cpu_us_each": cpu_s / n * 1e6,
    }


async def call_all(client: Client, numbers: Iterator[int], in_flight: int) -> None:
    async def call() -> None:
        for number in numbers:
            await client.run(number)

    await asyncio.gather(*(call() for _ in range(in_flight)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=500)
    parser.add_argument("--n", type=int, default=1000)
    given = parser.parse_args()
    print(json.dumps(run_virtual(load(given.partitions, given.in_flight, given.n))))
