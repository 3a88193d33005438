"""Contract: rows of instances, and queries over them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import InputInvalid
from shardrt.store.base import ExecutionKey, Filter, HistoryChunk
from tests.store.hubs import appended, checkpoint, collect, keys, owned, row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.store.base import InstanceRow, Store
    from tests.store.hubs import Stores


async def filled(stores: Stores, *rows: InstanceRow, partition: int = 0) -> Store:
    store = await stores.open()
    await fill(store, *rows, partition=partition)
    return store


async def fill(
    store: Store, *rows: InstanceRow, chunks: Sequence[HistoryChunk] = (), partition: int = 0
) -> None:
    epoch = await owned(store, partition)
    lsn = await appended(store, epoch, b"record", partition=partition)
    await store.checkpoint(checkpoint(epoch, lsn, partition=partition, upserts=rows, chunks=chunks))


FULL = row(
    "Ünïcode 名前 'quoted' \\ % _",
    version="1.2",
    status="Completed",
    completed_at=2**53 + 1,
    parent_id="parent",
    tags={"k": "v", "ключ": '"\\'},
    next_due=-5,
    active=True,
    state=bytes(range(256)),
)


async def test_every_column_comes_back_as_it_was(stores: Stores):
    store = await filled(stores, FULL, row("bare"), row("no tags", tags={}))
    ids = [FULL.instance_id, "bare", "no tags", "absent", "bare"]
    rows = await store.load(keys(0, ids))
    assert sorted(rows, key=str) == sorted([FULL, row("bare"), row("no tags", tags={})], key=str)
    assert await store.load(keys(0, [])) == []
    assert await store.load(keys(1, ids)) == []


async def test_rows_and_histories_of_several_partitions_are_read_at_once(stores: Stores):
    store = await stores.open()
    for partition, ids in enumerate((["a", "b"], ["c", "d"], [])):
        chunks = [
            HistoryChunk(each, execution, seq, f"[{seq}]".encode())
            for each in ids
            for execution in ("e1", "e2")
            for seq in (10, 9, 0)
        ]
        await fill(store, *(row(each) for each in ids), chunks=chunks, partition=partition)
    wanted = [*keys(0, ["a", "c"]), *keys(2, ["b"]), *keys(1, ["d", "a"]), *keys(0, ["a"])]
    assert sorted(await store.load(wanted), key=str) == [row("a"), row("d")]
    executions = [
        ExecutionKey(1, "d", "e2"),
        ExecutionKey(0, "d", "e1"),
        ExecutionKey(0, "b", "e1"),
        ExecutionKey(0, "b", "e3"),
        ExecutionKey(1, "d", "e2"),
    ]
    found = await store.history(executions)
    of_d = [each for each in found if each.instance_id == "d"]
    assert of_d == [HistoryChunk("d", "e2", seq, f"[{seq}]".encode()) for seq in (0, 9, 10)]
    of_b = [each for each in found if each not in of_d]
    assert of_b == [HistoryChunk("b", "e1", seq, f"[{seq}]".encode()) for seq in (0, 9, 10)]
    assert await store.history([]) == []


async def test_instances_are_read_with_the_histories_of_those_that_may_run(stores: Stores):
    store = await stores.open()
    rows = [
        row("a"),
        row("b", execution_id="e2", state=b'"large"'),
        row("ended", status="Completed", completed_at=7),
        row("suspended", status="Suspended"),
        row("bare", tags={"k": "v"}),
    ]
    chunks = [
        HistoryChunk(each, execution, seq, f"[{seq}]".encode())
        for each in ("a", "b", "ended", "suspended")
        for execution in ("e1", "e2")
        for seq in (10, 9, 0)
    ]
    await fill(store, *rows, chunks=chunks)
    other = row("other")
    await fill(store, other, chunks=[HistoryChunk("other", "e1", 3, b"[]")], partition=1)
    ids = ["ended", "b", "bare", "absent", "other", "a", "suspended", "b"]
    found = await store.load_whole([*keys(0, ids), *keys(1, ["other", "a"])])
    assert sorted((each.row for each in found), key=str) == sorted([*rows, other], key=str)
    histories = {row.instance_id: [each.seq for each in chunks] for row, chunks in found}
    waiting = {"a": [0, 9, 10], "b": [0, 9, 10], "other": [3]}
    assert histories == waiting | {"ended": [], "suspended": [], "bare": []}
    for each in found:
        assert all(chunk in chunks for chunk in each.chunks if each.row != other)
        assert {chunk.execution_id for chunk in each.chunks} <= {each.row.execution_id}
    assert await store.load_whole([]) == []


async def test_an_update_replaces_every_column(stores: Stores):
    store = await filled(stores, FULL)
    await fill(store, row(FULL.instance_id))
    assert await store.load(keys(0, [FULL.instance_id])) == [row(FULL.instance_id)]


async def test_active_rows_stream(stores: Stores):
    rows = [row(f"i{number:03}", active=number % 2 == 0) for number in range(300)]
    store = await filled(stores, *rows)
    found = await collect(store.active(0))
    assert sorted(found, key=lambda each: each.instance_id) == rows[::2]
    assert await collect(store.active(1)) == []


async def test_timers_stream(stores: Stores):
    rows = [row(f"i{number:04}", next_due=number % 7 or None) for number in range(2500)]
    store = await filled(stores, *rows)
    found = await collect(store.due(0))
    assert sorted(found) == sorted((r.next_due, r.instance_id) for r in rows if r.next_due)


async def ids(store: Store, where: Filter) -> list[str]:
    page = await store.query(where, limit=100)
    counted = await store.count(where)
    assert sum(counted.values()) == len(page.rows), "count and query must agree"
    return [each.instance_id for each in page.rows]


MIXED = [
    row("order-1", status="Running", created_at=10, name="orders", tags={"a": "1", "b": "2"}),
    row("order-2", status="Failed", created_at=20, completed_at=25, name="orders"),
    row("Order-3", status="Completed", created_at=30, completed_at=35, tags={"a": "2"}),
    row("50%_off\\", status="Completed", created_at=40, completed_at=45, tags={"a": "1"}),
    row("50xyoff", status="Pending", created_at=50, tags={"b": "1", "a": ""}),
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(), [0, 1, 2, 3, 4]),
        (Filter(status=("Completed",)), [2, 3]),
        (Filter(status=("Completed", "Failed", "Odd'")), [1, 2, 3]),
        (Filter(name="orders"), [0, 1]),
        (Filter(name="order"), []),
        (Filter(id_prefix="order"), [0, 1]),
        (Filter(id_prefix=""), [0, 1, 2, 3, 4]),
        (Filter(id_prefix="50%"), [3]),
        (Filter(id_prefix="50%_off\\"), [3]),
        (Filter(id_prefix="50_"), []),
        (Filter(created_from=20, created_to=40), [1, 2]),
        (Filter(completed_from=35), [2, 3]),
        (Filter(completed_to=35), [1]),
        (Filter(tags={}), [0, 1, 2, 3, 4]),
        (Filter(tags={"a": "1"}), [0, 3]),
        (Filter(tags={"a": "1", "b": "2"}), [0]),
        (Filter(tags={"a": ""}), [4]),
        (Filter(tags={"c": "1"}), []),
        (Filter(status=("Running",), name="orders", id_prefix="o", tags={"b": "2"}), [0]),
        (Filter(name="'; DROP TABLE instances; --"), []),
    ],
    ids=str,
)
async def test_a_filter_joins_its_conditions(stores: Stores, where: Filter, expected: list[int]):
    store = await filled(stores, *MIXED)
    assert await ids(store, where) == [MIXED[each].instance_id for each in expected]


ACCOUNTS = [
    row("@account@a", name="account", status="Entity", execution_id="", created_at=25),
    row("@account@b", name="account", status="Entity", execution_id="", created_at=5),
    row("@counter@a", name="counter", status="Entity", execution_id="", created_at=15),
    row("@$limit@api", name="$limit", status="Limit", execution_id="", created_at=15),
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(entities=True), ["@account@b", "@counter@a", "@account@a"]),
        (Filter(entities=True, name="account"), ["@account@b", "@account@a"]),
        (Filter(entities=True, id_prefix="@counter@"), ["@counter@a"]),
        (Filter(entities=True, status=("Running",)), []),
        (Filter(status=("Entity",)), []),
        (Filter(status=("Limit",)), []),
        (Filter(entities=True, status=("Limit",)), []),
        (Filter(id_prefix="@$limit@"), []),
        (Filter(limits=True), ["@$limit@api"]),
        (Filter(limits=True, id_prefix="@$limit@b"), []),
        (Filter(limits=True, entities=True), []),
        (Filter(name="account"), []),
        (Filter(created_to=30), [MIXED[each].instance_id for each in (0, 1)]),
    ],
    ids=str,
)
async def test_entities_are_apart_from_instances(
    stores: Stores, where: Filter, expected: list[str]
):
    store = await filled(stores, *MIXED, *ACCOUNTS)
    assert await ids(store, where) == expected
    found = await store.count(where)
    assert sum(found.values()) == len(expected)


async def test_counts_are_per_status(stores: Stores):
    store = await filled(stores, *MIXED)
    await fill(store, row("elsewhere"), partition=1)
    assert await store.count(Filter()) == {
        "Running": 2, "Failed": 1, "Completed": 2, "Pending": 1,
    }  # fmt: skip


async def test_a_list_spans_partitions_in_order_of_creation(stores: Stores):
    store = await filled(stores, row("b", created_at=1), row("d", created_at=3))
    await fill(store, row("c", created_at=2), row("a", created_at=1), partition=1)
    assert await ids(store, Filter()) == ["a", "b", "c", "d"]


async def test_ids_are_ordered_by_their_bytes(stores: Stores):
    names = ["a", "B", "_", "é", "-", "Z", "z", "名"]
    store = await filled(stores, *(row(each) for each in names))
    assert await ids(store, Filter()) == sorted(names)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
async def test_pages_make_up_the_list(stores: Stores, limit: int):
    rows = [row(f"i{number}", created_at=number // 3) for number in range(7)]
    store = await filled(stores, *rows)
    found: list[InstanceRow] = []
    token = None
    for _ in range(8):
        page = await store.query(Filter(id_prefix="i"), limit=limit, token=token)
        found += page.rows
        token = page.token
        if token is None:
            break
        assert len(page.rows) == limit
    assert found == rows


async def test_a_page_goes_on_behind_its_last_row_whatever_happened(stores: Stores):
    store = await filled(stores, *(row(each) for each in "bdf"))
    page = await store.query(Filter(), limit=2)
    epoch = await owned(store)
    _, lsn = await store.position(0)
    await store.checkpoint(checkpoint(epoch, lsn, upserts=[row("a"), row("e")], deletes=["d"]))
    rest = await store.query(Filter(), limit=10, token=page.token)
    assert [each.instance_id for each in rest.rows] == ["e", "f"]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        "ünïcode",
        "AAAA",
        base64.b64encode(b"{}").decode(),
        base64.b64encode(b'["x","y"]').decode(),
        base64.b64encode(b'[1,"a","b"]').decode(),
        base64.b64encode(b'[99999999999999999999,"a"]').decode(),
    ],
)
async def test_a_broken_token_is_refused(stores: Stores, token: str):
    store = await stores.open()
    with pytest.raises(InputInvalid, match="page token"):
        await store.query(Filter(), limit=5, token=token)


async def test_a_page_has_at_least_one_row(stores: Stores):
    store = await stores.open()
    with pytest.raises(InputInvalid, match="limit"):
        await store.query(Filter(), limit=0)
