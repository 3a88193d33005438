"""Entities of an embedded runtime, on each store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from shardrt import App, EntityId, EntityStatus, Runtime
from shardrt.errors import EntityFailed, EntityNotRegistered, InputInvalid, InstanceNotFinished
from shardrt.store.base import Filter
from shardrt.store.memory import MemoryStore
from tests.entities.bank import Account, Journal, Move, app, audit, caught, hold, move, notes
from tests.waiting import eventually

if TYPE_CHECKING:
    from shardrt import Client

Make: TypeAlias = Callable[[], Runtime]
KEYS = ["a", "b", "c"]


def account(key: str) -> EntityId:
    return EntityId(Account, key)


def run(make: Make, *mains: Callable[[Client], Any]) -> None:
    """Run these one after the other, each in a runtime of its own."""

    async def each(main: Callable[[Client], Any]) -> None:
        async with make() as runtime:
            await main(runtime.client)

    for main in mains:
        asyncio.run(each(main))


def test_a_counter_counts_each_signal_once_and_survives_a_restart(runtime: Make):
    async def signal(client: Client) -> None:
        await asyncio.gather(*(client.signal_entity(account("a"), "add", 1) for _ in range(300)))
        assert await client.call_entity(account("a"), Account.add, 1) == 301

    async def look(client: Client) -> None:
        found = await client.get_entity("@Account@a", state_type=Account)
        assert found is not None
        assert (found.state.balance, found.exists, found.locked_by) == (301, True, None)
        assert await client.get_entity(account("b")) is None

    run(runtime, signal, look)


def test_transfers_never_show_and_sums_stay(runtime: Make):
    async def main(client: Client) -> None:
        random = Random(1)
        pairs = [random.sample(KEYS, 2) for _ in range(60)]
        orders = [Move(source, target, random.randint(1, 99)) for source, target in pairs]
        moves = [await client.start(move, order) for order in orders]
        audits = [await client.start(audit, KEYS) for _ in range(20)]
        assert [await each.result(timeout=30) for each in audits] == [0] * 20
        for each in moves:
            await each.result(timeout=30)
        balances = [await client.call_entity(account(key), Account.get) for key in KEYS]
        assert sum(balances) == 0
        assert sorted({str(each) for each in await statuses(client)}) == ["None"]

    run(runtime, main)


async def statuses(client: Client) -> list[str | None]:
    found = [await client.get_entity(account(key)) for key in KEYS]
    return [each.locked_by for each in found if each is not None]


def test_signals_of_one_sender_come_in_order(runtime: Make):
    async def main(client: Client) -> None:
        names = ["one", "two", "three"]
        handles = [await client.start(notes, 20, instance_id=name) for name in names]
        for handle in handles:
            await handle.result(timeout=20)

        async def lines() -> list[str]:
            found = await client.get_entity("@journal@all", state_type=Journal)
            return [] if found is None else list(found.state.lines)

        await eventually(lambda: _has(lines, 60))
        told = await lines()
        for name in names:
            mine = [line for line in told if line.startswith(f"{name} ")]
            assert mine == [f"{name} {number}" for number in range(20)]

    run(runtime, main)


async def _has(lines: Callable[[], Any], count: int) -> bool:
    return len(await lines()) == count


def test_a_failed_operation_has_not_happened(runtime: Make):
    async def main(client: Client) -> None:
        handle = await client.start(caught, "a")
        found = await handle.result(timeout=10)
        assert found[0] == found[2] == 5
        assert "failed: ValueError: not 7" in found[1]
        with pytest.raises(EntityFailed, match="@account@a fail_after: ValueError: not 9") as info:
            await client.call_entity(account("a"), Account.fail_after, 9)
        assert info.value.error_type == "ValueError"
        assert await client.call_entity(account("a"), "get") == 5

    run(runtime, main)


@pytest.mark.parametrize("value", [0, False, "", []])
def test_a_falsy_state_is_kept(runtime: Make, value: object):
    async def write(client: Client) -> None:
        await client.call_entity("@switch@x", "set", value)

    async def read(client: Client) -> None:
        found = await client.get_entity("@switch@x")
        assert found is not None
        assert (found.state, type(found.state)) == (value, type(value))
        await client.call_entity("@switch@x", "set", None)
        assert await client.get_entity("@switch@x") is None

    run(runtime, write, read)


def test_a_signal_for_later_outlives_the_runtime_and_is_not_early(runtime: Make):
    async def signal(client: Client) -> None:
        await client.signal_entity(account("a"), "add", 5, at=timedelta(seconds=1))
        assert await client.call_entity(account("a"), Account.get) == 0

    async def wait(client: Client) -> None:
        async def has_come() -> bool:
            return bool(await client.call_entity(account("a"), Account.get) == 5)

        await eventually(has_come)

    run(runtime, signal, wait)


def test_a_lock_outlives_the_runtime_and_ends_with_its_holder(runtime: Make):
    async def lock(client: Client) -> None:
        await client.start(hold, ["a", "b"], instance_id="holder")
        await eventually(lambda: _is_held(client, "b"))
        await client.signal_entity(account("a"), "add", 1)

    async def release(client: Client) -> None:
        assert await _is_held(client, "a")
        with pytest.raises(TimeoutError):
            await client.call_entity(account("b"), Account.get, timeout=0.2)
        await client.terminate("holder")
        assert await client.call_entity(account("a"), Account.get, timeout=10) == 1
        assert await client.call_entity(account("b"), Account.get, timeout=10) == 0

    run(runtime, lock, release)


async def _is_held(client: Client, key: str) -> bool:
    found = [each async for each in client.list_entities(Account, include_empty=True)]
    return any(each.key == key and each.locked_by == "holder" for each in found)


def test_entities_signal_others_and_start_orchestrations(runtime: Make):
    async def main(client: Client) -> None:
        await client.call_entity(account("a"), Account.add, 5)
        await client.call_entity(account("a"), Account.pass_on, "b")
        await eventually(lambda: _exists(client, "audit-b"))
        assert await client.handle("audit-b").result(timeout=10) in {0, 5}
        assert await client.call_entity(account("b"), Account.get) == 5
        assert await client.get_entity(account("a")) is None

    run(runtime, main)


async def _exists(client: Client, instance_id: str) -> bool:
    return await client.get(instance_id) is not None


def test_lists_show_entities_apart_from_instances(runtime: Make):
    async def main(client: Client) -> None:
        for key in ("x1", "x2", "y"):
            await client.signal_entity(account(key), "add", 1)
        await client.call_entity("@switch@x1", "get")
        handle = await client.start(audit, ["x1"])
        await handle.result(timeout=10)
        await eventually(lambda: _listed(client, 3))
        named = [each.key async for each in client.list_entities("ACCOUNT", key_prefix="x")]
        assert sorted(named) == ["x1", "x2"]
        every = [each async for each in client.list_entities(include_empty=True, page_size=1)]
        assert sorted(each.entity_id for each in every) == [
            "@account@x1", "@account@x2", "@account@y", "@switch@x1",
        ]  # fmt: skip
        assert [each.name async for each in client.list()] == ["audit"]
        assert await client.count() == {"Completed": 1}
        with pytest.raises(InputInvalid):
            [each async for each in client.list_entities(key_prefix="x")]

    run(runtime, main)


async def _listed(client: Client, count: int) -> bool:
    found = [each async for each in client.list_entities(Account)]
    return len(found) == count and [each async for each in client.list()] != []


def test_only_what_is_empty_is_purged(runtime: Make):
    async def main(client: Client) -> None:
        await client.call_entity(account("a"), Account.add, 1)
        await client.call_entity(account("b"), "delete")
        with pytest.raises(InstanceNotFinished):
            await client.purge(str(account("a")))
        await eventually(lambda: _purged(client))
        await eventually(lambda: _entities(client, ["@account@a"]))
        assert await client.purge(str(account("b"))) == 0

    run(runtime, main)


async def _purged(client: Client) -> bool:
    return await client.purge_entities(Account) == 1


async def _entities(client: Client, expected: list[str]) -> bool:
    found: list[EntityStatus] = [each async for each in client.list_entities(include_empty=True)]
    return [each.entity_id for each in found] == expected


def test_what_makes_no_sense_is_refused(runtime: Make):
    async def main(client: Client) -> None:
        with pytest.raises(EntityNotRegistered, match="no entity 'none'"):
            await client.signal_entity("@none@a", "add")
        with pytest.raises(InputInvalid, match="no entity id"):
            await client.call_entity("account", "add")
        with pytest.raises(InputInvalid, match="is the id of an entity"):
            await client.start(audit, [], instance_id="@account@a")
        with pytest.raises(EntityFailed, match=r"InputInvalid: .*no operation 'rob'"):
            await client.call_entity(account("a"), "rob")

    run(runtime, main)


class Reversed:
    """A codec whose work can be seen."""

    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


def test_sealed_payloads_are_opened_for_operations_only():
    sealing = App(payload_codec=Reversed())
    sealing.include(app)
    store = MemoryStore()

    async def main() -> None:
        settings = {"shard.checkpoint_interval_s": 0.05}
        async with Runtime(sealing, store=store, partitions=2, settings=settings) as runtime:
            client = runtime.client
            handle = await client.start(move, Move("a", "b", 7))
            assert await handle.result(timeout=10) == 7
            assert await client.call_entity(account("b"), Account.add, 1) == 8
            found = await client.get_entity(account("b"), state_type=Account)
            assert found is not None
            assert found.state.balance == 8
            await eventually(lambda: _listed(client, 2))
            assert {each.state["balance"] async for each in client.list_entities()} == {-7, 8}
            rows = (await store.query(Filter(entities=True), limit=9)).rows
            assert rows
            assert all(b"balance" not in row.state for row in rows)

    asyncio.run(main())
