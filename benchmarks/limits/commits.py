"""The bytes that `hello` commits, committed again by a bare loop: what Postgres itself needs.

    python -m benchmarks.limits.commits [--n 5000] [--concurrency 500]

Runs `hello` on an embedded runtime whose store remembers the size of every batch of journal
records. A bare psycopg loop then inserts random records of the same sizes in the same batches,
one commit each, into a table like the journal, on the same server (fsync on). The ratio of the
two times says how far the hub is from its database. Checkpoints are not in it.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence

import psycopg
import uvloop

from shardrt import Runtime
from shardrt.bench import app
from shardrt.bench.loops import closed_loop
from shardrt.bench.workloads.hello import EXPECTED, hello
from shardrt.store.base import Append
from shardrt.store.postgres.store import PostgresStore
from shardrt.testing.postgres import PostgresServer

CONNECTIONS = 4

TABLE = """
CREATE TABLE bare (
    partition integer NOT NULL, lsn bigint NOT NULL, record bytea NOT NULL,
    PRIMARY KEY (partition, lsn)
)
"""
INSERT = "INSERT INTO bare SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::bytea[])"


class Remembering(PostgresStore):
    """Remembers partition, number and size of what it appends."""

    def __init__(self, url: str) -> None:
        super().__init__(url, connections=CONNECTIONS)
        self.batches: list[list[tuple[int, int, int]]] = []

    async def append(self, batch: Sequence[Append]) -> set[int]:
        self.batches.append([(each.partition, each.lsn, len(each.record)) for each in batch])
        return await super().append(batch)


async def run_hub(store: Remembering, n: int, concurrency: int) -> float:
    """Return the seconds that `n` instances took; the store remembers theirs alone."""
    async with Runtime(app, store=store, tune_gc=True) as runtime:

        async def run_one(_: int) -> None:
            assert await runtime.client.execute(hello) == EXPECTED

        await closed_loop(run_one, n // 10, concurrency, lambda: None)
        store.batches.clear()
        timing = await closed_loop(run_one, n, concurrency, lambda: None)
        return timing.seconds


def run_bare(dsn: str, batches: list[list[tuple[int, int, int]]]) -> float:
    """Return the seconds that the same commits take without a hub."""
    columns = [
        (
            [partition for partition, _, _ in batch],
            [lsn for _, lsn, _ in batch],
            [os.urandom(size) for _, _, size in batch],
        )
        for batch in batches
    ]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        start_s = time.perf_counter()
        for values in columns:
            connection.execute(INSERT, values, binary=True, prepare=True)
        seconds = time.perf_counter() - start_s
        connection.execute("DROP TABLE bare")
    return seconds


async def main(n: int, concurrency: int) -> None:
    with PostgresServer() as server:
        store = Remembering(server.dsn)
        hub_s = await run_hub(store, n, concurrency)
        bare_s = await asyncio.to_thread(run_bare, server.dsn, store.batches)
    print(
        json.dumps(
            {
                "instances": n,
                "commits": len(store.batches),
                "records": sum(map(len, store.batches)),
                "bytes": sum(size for batch in store.batches for _, _, size in batch),
                "hub_s": round(hub_s, 3),
                "bare_s": round(bare_s, 3),
                "hub_to_bare": round(hub_s / bare_s, 2),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=500)
    given = parser.parse_args()
    uvloop.run(main(given.n, given.concurrency))
