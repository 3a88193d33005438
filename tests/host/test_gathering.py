from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import StoreUnavailable
from shardrt.host.gathering import KEYS_MAX, Gathering, Part
from shardrt.store.base import ExecutionKey, HistoryChunk, InstanceKey, InstanceRow, Whole
from shardrt.store.memory import MemoryStore
from shardrt.store.paging import PAGE_BYTES
from shardrt.testing.virtual import run_virtual
from tests.store.hubs import keys, row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


class Rows(MemoryStore):
    """Has whatever it is asked for, but for what is `absent`; answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.may.set()
        self.asked: list[list[InstanceKey | ExecutionKey]] = []
        self.absent: set[str] = set()
        self.unreadable: set[str] = set()
        self.state = b"{}"

    async def load(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        await self._take(keys)
        found = [key.instance_id for key in keys if key.instance_id not in self.absent]
        return [row(each, state=self.state) for each in reversed(dict.fromkeys(found))]

    async def load_whole(self, keys: Sequence[InstanceKey]) -> list[Whole]:
        rows = await self.load(keys)
        return [Whole(each, [HistoryChunk(each.instance_id, "e1", 0, b"[]")]) for each in rows]

    async def history(self, keys: Sequence[ExecutionKey]) -> list[HistoryChunk]:
        await self._take(keys)
        return [
            HistoryChunk(each.instance_id, each.execution_id, seq, b"[]")
            for each in dict.fromkeys(keys)
            for seq in (0, 4)
        ]

    async def _take(self, keys: Sequence[InstanceKey | ExecutionKey]) -> None:
        self.asked.append(list(keys))
        await self.may.wait()
        if any(key.instance_id in self.unreadable for key in keys):
            raise ValueError("unreadable")


def play(main: Callable[[Gathering, Rows], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Rows()
        gathering = Gathering(store)
        await main(gathering, store)
        gathering.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(run())


async def soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def ids(part: Part[InstanceRow]) -> list[str]:
    return [each.instance_id for each in part.found]


def test_what_is_asked_meanwhile_shares_the_next_query():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.may.clear()
        store.absent = {"c"}
        answers = [gathering.rows(keys(0, ["a"]))]
        await soon()
        answers += [gathering.rows(keys(n, wanted)) for n, wanted in enumerate(("bc", "d", "bd"))]
        store.may.set()
        assert [ids(await each) for each in answers] == [["a"], ["b"], ["d"], ["b", "d"]]
        assert [len(each) for each in store.asked] == [1, 5]

    play(main)


def test_histories_go_to_who_asked_for_them():
    async def main(gathering: Gathering, store: Rows) -> None:
        wanted = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")]
        answers = [gathering.history(ExecutionKey(0, *each)) for each in wanted]
        for each, answer in zip(wanted, answers, strict=True):
            chunks = [HistoryChunk(*each, 0, b"[]"), HistoryChunk(*each, 4, b"[]")]
            assert await answer == Part(1, chunks)
        assert len(store.asked) == 1

    play(main)


def test_instances_come_with_their_histories():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.absent = {"b"}
        answers = [gathering.whole(keys(n, wanted)) for n, wanted in enumerate(("ab", "cb"))]
        found = [
            [(row.instance_id, chunks) for row, chunks in (await each).found] for each in answers
        ]
        assert found == [[(each, [HistoryChunk(each, "e1", 0, b"[]")])] for each in "ac"]
        assert len(store.asked) == 1

    play(main)


def test_no_query_is_for_more_than_so_many():
    async def main(gathering: Gathering, store: Rows) -> None:
        answers = [gathering.rows(keys(0, [f"{n}"])) for n in range(3 * KEYS_MAX)]
        assert [ids(await each) for each in answers] == [[f"{n}"] for n in range(3 * KEYS_MAX)]
        sizes = [len(each) for each in store.asked]
        assert sizes[0] < max(sizes) == KEYS_MAX

    play(main)


def test_large_ones_come_a_few_at_a_time():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.state = bytes(PAGE_BYTES // 3)
        answers = [gathering.rows(keys(0, [f"{n}"])) for n in range(100)]
        await asyncio.gather(*answers)
        assert {len(each) for each in store.asked[1:]} == {3}

    play(main)


def test_who_asks_for_many_gets_as_many_as_fit():
    async def main(gathering: Gathering, store: Rows) -> None:
        wanted = [f"{n}" for n in range(2 * KEYS_MAX)]
        other = ["x"]
        while wanted:
            answers = [gathering.rows(keys(0, wanted)), gathering.rows(keys(1, other))]
            part = await answers[0]
            assert ids(part) == wanted[: part.taken]
            wanted = wanted[part.taken :]
            assert ids(await answers[1]) == other
        assert max(len(each) for each in store.asked) == KEYS_MAX

    play(main)


def test_large_ones_that_are_asked_for_together_come_a_few_at_a_time():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.state = bytes(PAGE_BYTES // 3)
        wanted = keys(0, [f"{n}" for n in range(KEYS_MAX)])
        for _ in range(5):
            await gathering.whole(wanted)
        assert [len(each) for each in store.asked] == [16, 2, 2, 2, 2]

    play(main)


def test_what_is_too_much_for_the_store_is_read_in_smaller_pieces():
    async def main(gathering: Gathering, store: Rows) -> None:
        most = 50
        failures = 0

        async def load(keys: Sequence[InstanceKey]) -> list[InstanceRow]:
            if len(keys) > most:
                raise StoreUnavailable("too much")
            return await store.load(keys)

        gathering._rows._fetch = load
        wanted = [f"{n}" for n in range(4000)]
        while wanted:
            try:
                wanted = wanted[(await gathering.rows(keys(0, wanted))).taken :]
            except StoreUnavailable:
                failures += 1
                most = KEYS_MAX if failures == 10 else most
        assert failures == 10
        sizes = [len(each) for each in store.asked]
        assert sum(sizes) == 4000
        assert len(sizes) < 150
        assert max(sizes) > 100

    play(main)


def test_one_that_cannot_be_read_keeps_nobody_else_from_being_read():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.unreadable = {"bad"}
        wanted = ["a", "bad", "b", "c"]
        found: dict[str, list[str]] = {}

        async def ask(name: str) -> None:
            for _ in range(3):
                try:
                    found[name] = ids(await gathering.rows(keys(0, [name])))
                except ValueError:
                    continue
                break

        await asyncio.gather(*(ask(each) for each in wanted))
        assert found == {"a": ["a"], "b": ["b"], "c": ["c"]}

    play(main)


def test_a_failure_is_told_to_all_who_share_the_query():
    async def main(gathering: Gathering, store: Rows) -> None:
        async def fail(_: object) -> list[InstanceRow]:
            raise StoreUnavailable("gone")

        gathering._rows._fetch = fail
        answers = [gathering.rows(keys(n, ["a"])) for n in range(3)]
        for each in answers:
            with pytest.raises(StoreUnavailable, match="gone"):
                await each
        gathering._rows._fetch = store.load
        assert ids(await gathering.rows(keys(0, ["a"]))) == ["a"]

    play(main)


def test_who_waits_no_more_is_left_out():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.may.clear()
        under_way = [gathering.rows(keys(0, ["a"])) for _ in range(2)]
        await soon()
        queued = [gathering.rows(keys(0, ["b"])), gathering.rows(keys(0, ["c"]))]
        under_way[0].cancel()
        queued[0].cancel()
        store.may.set()
        assert ids(await under_way[1]) == ["a"]
        assert ids(await queued[1]) == ["c"]
        assert store.asked[1] == keys(0, ["c"])

    play(main)


def test_nobody_waits_for_one_that_is_closed():
    async def main(gathering: Gathering, store: Rows) -> None:
        store.may.clear()
        answers = [gathering.rows(keys(0, ["a"]))]
        await soon()
        answers.append(gathering.rows(keys(0, ["b"])))
        gathering.close()
        await soon()
        assert all(each.cancelled() for each in answers)

    play(main)
