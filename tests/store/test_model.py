"""The memory store is the model; whatever is done, the others answer the same."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from shardrt.errors import ShardrtError
from shardrt.store.base import Append, Checkpoint, ExecutionKey, Filter, HistoryChunk, View
from shardrt.testing.postgres import with_parameters
from tests.store.hubs import EXPIRED_US, LONG_US, Stores, collect, host, keys, memory_url, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shardrt.store.base import Store

PARTITIONS = 2
NAMES = ["a", "b", "ä%"]
EXECUTIONS = ["e1", "e2"]

partitions = st.integers(0, PARTITIONS - 1)
names = st.sampled_from(NAMES)
small = st.integers(-1, 1)
subsets = st.lists(names, unique=True, max_size=3)
tags = st.none() | st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)
rows = st.builds(
    row,
    names,
    execution_id=st.sampled_from(EXECUTIONS),
    status=st.sampled_from(["Running", "Completed"]),
    created_at=st.integers(0, 3),
    completed_at=st.none() | st.integers(0, 3),
    next_due=st.none() | st.integers(-1, 2),
    active=st.booleans(),
    tags=tags,
    state=st.binary(max_size=3),
)
chunks = st.builds(
    HistoryChunk, names, st.sampled_from(EXECUTIONS), st.integers(0, 3), st.binary(max_size=3)
)
filters = st.builds(
    Filter,
    status=st.sampled_from([(), ("Running",), ("Running", "Completed")]),
    id_prefix=st.sampled_from([None, "a", "ä%", "_"]),
    created_from=st.none() | st.integers(0, 3),
    completed_to=st.none() | st.integers(0, 3),
    tags=tags,
)


def key_of(chunk: HistoryChunk) -> tuple[str, str, int]:
    return chunk.instance_id, chunk.execution_id, chunk.seq


class Comparison(RuleBasedStateMachine):
    """Does everything to both stores and compares the answers."""

    new_pair: Callable[[], tuple[Store, Store]]
    loop: asyncio.Runner

    @initialize()
    def open(self) -> None:
        self.model, self.store = type(self).new_pair()
        self.epochs = [0] * PARTITIONS
        self.lsns = [0] * PARTITIONS
        for each in (self.model, self.store):
            self.loop.run(self.create(each))

    async def create(self, store: Store) -> None:
        await store.open()
        await store.create(PARTITIONS)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.loop.run(self.store.close())

    def both(self, call: str, *args: Any, **options: Any) -> Any:
        expected, found = (
            self.loop.run(outcome(getattr(each, call), *args, **options))
            for each in (self.model, self.store)
        )
        assert found == expected
        return expected

    @rule(partition=partitions, off=small, owner=st.sampled_from(["h1/1", "h2/1", "h2/2"]))
    def claim(self, partition: int, off: int, owner: str) -> None:
        epoch = self.both("claim", partition, self.epochs[partition] + off, owner)
        self.epochs[partition] = epoch or self.epochs[partition]

    @rule(
        ids=st.sampled_from(["h1", "h2"]),
        incarnation=st.sampled_from("12"),
        ttl=st.sampled_from([LONG_US, EXPIRED_US]),
    )
    def renew(self, ids: str, incarnation: str, ttl: int) -> None:
        self.both("renew", host(ids, incarnation), ttl)

    @rule(ids=st.sampled_from(["h1", "h2"]), incarnation=st.sampled_from("12"))
    def leave(self, ids: str, incarnation: str) -> None:
        self.both("leave", host(ids, incarnation))

    @rule(partition=partitions, off=small)
    def release(self, partition: int, off: int) -> None:
        self.both("release", partition, self.epochs[partition] + off)

    @rule(offs=st.lists(st.tuples(small, small), min_size=1, max_size=PARTITIONS))
    def append(self, offs: list[tuple[int, int]]) -> None:
        batch = [
            Append(p, self.epochs[p] + epoch, self.lsns[p] + 1 + lsn, b"%d" % p)
            for p, (epoch, lsn) in enumerate(offs)
        ]
        self.note(self.both("append", batch))

    @rule(count=st.integers(1, 5))
    def append_well(self, count: int) -> None:
        for _ in range(count):
            batch = [Append(p, self.epochs[p], self.lsns[p] + 1, b"x") for p in range(PARTITIONS)]
            self.note(self.both("append", batch))

    def note(self, done: set[int]) -> None:
        for partition in done:
            self.lsns[partition] += 1

    @rule(
        partition=partitions,
        off=st.sampled_from([0, 0, 0, -1]),
        lag=st.integers(-1, 3),
        upserts=st.lists(rows, max_size=3, unique_by=lambda each: each.instance_id),
        chunks=st.lists(chunks, max_size=4, unique_by=key_of),
        resets=subsets,
        deletes=subsets,
    )
    def checkpoint(self, partition: int, off: int, lag: int, **parts: Any) -> None:
        written = Checkpoint(
            partition=partition,
            epoch=self.epochs[partition] + off,
            lsn=max(0, self.lsns[partition] - lag),
            state=b"%d" % lag,
            **consistent(**parts),
        )
        self.both("checkpoint", written)

    @rule(partition=partitions, off=st.sampled_from([0, 0, -1]), lag=small)
    def truncate(self, partition: int, off: int, lag: int) -> None:
        epoch, lsn = self.epochs[partition] + off, self.lsns[partition] - lag
        self.both("truncate", partition, epoch, lsn)

    @rule(where=filters, limit=st.integers(1, 3))
    def query(self, where: Filter, limit: int) -> None:
        token = None
        for _ in range(len(NAMES) * PARTITIONS + 1):
            page = self.both("query", where, limit=limit, token=token)
            token = page.token
            if token is None:
                break
        self.both("count", where)

    @invariant()
    def all_can_be_read_the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        self.both("view")
        for p in range(PARTITIONS):
            self.both("position", p)
            self.both("head", p, self.epochs[p])
            head = self.loop.run(self.model.head(p, self.epochs[p]))
            self.both("read", p, head.checkpoint_lsn)
            self.both("load", keys(p, NAMES))
            self.both("load_whole", keys(p, NAMES))
            self.both("active", p)
            self.both("due", p)
            for name, execution in itertools.product(NAMES, EXECUTIONS):
                self.both("history", [ExecutionKey(p, name, execution)])


def consistent(**parts: Any) -> dict[str, Any]:
    """Drop chunks that the same checkpoint also asks to forget: no partition does that."""
    executions = {each.instance_id: each.execution_id for each in parts["upserts"]}
    kept = [
        chunk
        for chunk in parts["chunks"]
        if chunk.instance_id not in parts["resets"]
        or chunk.execution_id == executions.get(chunk.instance_id)
    ]
    return {**parts, "chunks": kept}


async def outcome(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what a call answers or raises, without clock readings and accidental order."""
    try:
        answer = method(*args, **options)
        answer = await (collect(answer) if hasattr(answer, "__aiter__") else answer)
    except (ShardrtError, ValueError) as error:
        return type(error)
    if isinstance(answer, View):
        hosts = [replace(each, expires_at=each.expires_at > answer.now) for each in answer.hosts]
        return hosts, answer.partitions
    return sorted(answer, key=repr) if isinstance(answer, list) else answer


FEW = settings(
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    derandomize=True,
    database=None,
)


def compare(new_store: Callable[[], Store], examples: int) -> None:
    with asyncio.Runner() as runner:

        class ThisComparison(Comparison):
            loop = runner
            new_pair = staticmethod(lambda: (Stores("memory", memory_url()).make(), new_store()))

        run_state_machine_as_test(ThisComparison, settings=settings(FEW, max_examples=examples))


@pytest.mark.slow
def test_sqlite_does_as_the_model(tmp_path: Path):
    numbers: Iterator[int] = itertools.count()
    compare(
        lambda: Stores("sqlite", f"sqlite:///{tmp_path}/{next(numbers)}.db").make(), examples=25
    )


@pytest.mark.slow
def test_postgres_does_as_the_model(hub_dsn: str, request: pytest.FixtureRequest):
    import psycopg  # noqa: PLC0415

    from shardrt.store.postgres.url import parse_url  # noqa: PLC0415

    url = parse_url(hub_dsn)

    def new_store() -> Store:
        with psycopg.connect(url.conninfo, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{url.schema}" CASCADE'.encode())
        return Stores("postgres", with_parameters(hub_dsn)).make()

    compare(new_store, examples=12)
