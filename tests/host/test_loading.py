"""Who waits for instances that cannot be read: nobody else, and nothing that memory must keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from shardrt import App, EntityId, OrchestrationContext
from shardrt.core import requests as r
from shardrt.errors import StoreUnavailable, SubOrchestrationFailed
from shardrt.store.memory import MemoryStore
from shardrt.testing.virtual import pass_time
from tests.host.test_eviction import letters, play as play_app, post, quick
from tests.host.test_ownership import ask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shardrt.host.partition_host import PartitionHost
    from shardrt.store.base import InstanceKey
    from shardrt.testing.client import HubClient
    from shardrt.testing.hub import Hub

app = App()
for orchestrator in (letters, post, quick):
    app.orchestrator(orchestrator)


@app.entity
@dataclass
class Purse:
    """Its money is not to be seen between two halves of a transfer."""

    money: int = 0

    def add(self, money: int) -> int:
        self.money += money
        return self.money


PURSES = (EntityId(Purse, "x!0"), EntityId(Purse, "y!0"))


@app.orchestrator
async def transfer(ctx: OrchestrationContext) -> list[int]:
    async with ctx.lock(*PURSES):
        return [await ctx.call_entity(each, Purse.add, 10) for each in PURSES]


@app.orchestrator
async def family(ctx: OrchestrationContext, ids: tuple[str, str]) -> str:
    """Start a child and write to another instance, in one step."""
    child, other = ids
    ctx.send_event(other, "letter", 7)
    try:
        return await ctx.call_sub_orchestrator(quick, "child", instance_id=child)
    except SubOrchestrationFailed as error:
        return str(error)


@app.orchestrator
async def daughter(ctx: OrchestrationContext, other: str) -> str:
    """Write to another instance, and tell the parent of the end, in one step."""
    await ctx.wait_for_event("go")
    ctx.send_event(other, "letter", 7)
    return "home"


@app.orchestrator
async def mother(ctx: OrchestrationContext, other: str) -> str:
    return await ctx.call_sub_orchestrator(daughter, other, instance_id="daughter!1")


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Instances and entities that the store fails to read."""
    unreadable: set[str] = set()

    def failing(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def fail(store: MemoryStore, keys: Sequence[InstanceKey]) -> Any:
            if any(key.instance_id in unreadable for key in keys):
                raise StoreUnavailable("took too long")
            return await read(store, keys)

        return fail

    for name in ("load", "load_whole"):
        monkeypatch.setattr(MemoryStore, name, failing(getattr(MemoryStore, name)))
    return unreadable


def play(main: Callable[[Hub, HubClient, PartitionHost], Awaitable[None]]) -> None:
    async def run(hub: Hub, client: HubClient) -> None:
        await hub.quiet()
        await main(hub, client, hub.members[0].shard.hosts[0])

    play_app(run, of=app)


async def put_away(hub: Hub, client: HubClient, **letters_of: int) -> None:
    """Start instances of partition 0 that wait for so many letters; return when they have left."""
    for name, count in letters_of.items():
        await client.start("letters", count, f"{name}!0")
    await left(hub)


async def left(hub: Hub, *besides: str) -> None:
    """Wait until nothing is in memory but these."""

    def resident() -> set[str]:
        hosts = hub.members[0].shard.hosts.values()
        return {each for host in hosts for each in (*host.core.instances, *host.core.entities)}

    await hub.until(lambda: resident() == set(besides))


def send(hub: Hub, number: int, *to: str) -> None:
    """Have partition `number` send a letter to each of these, in one message."""
    names = ", ".join(f'"{each}!0"' for each in to)
    start = r.Start("post", Raw(f"[{names}]".encode()), fresh=True)
    ask(hub, number, f"post{number}!{number}", start)


# -- what stays ----------------------------------------------------------------------------------


def test_what_two_wait_for_stays_until_both_have_it(bad: set[str]):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        await put_away(hub, client, one=2, two=1, three=1, idle=1)
        bad.update(["two!0", "three!0"])
        send(hub, 0, "one", "two")
        send(hub, 1, "one", "three")
        await left(hub, "one!0")
        bad.remove("two!0")
        assert await client.result("two!0") == [7]
        await pass_time(5)
        # One letter has reached it; the other would be lost, as if it did not exist.
        await left(hub, "one!0")
        bad.clear()
        assert await client.result("one!0") == [7, 7]
        await left(hub)

    play(main)


def test_what_was_in_memory_stays_beside_what_is_missing(bad: set[str]):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        await put_away(hub, client, one=2, two=1)
        hub.calls.held.add("checkpoint")
        await client.raise_event("one!0", "letter", 1)
        bad.add("two!0")
        send(hub, 1, "one", "two")
        await hub.until(lambda: host.loader.is_loading("two!0"))
        assert not host.loader.is_loading("one!0")
        hub.calls.held.clear()
        await pass_time(5)
        # Else it would be read when the other is there, and the other when this is, for ever.
        await left(hub, "one!0")
        bad.clear()
        assert await client.result("two!0") == [7]
        assert await client.result("one!0") == [1, 7]
        await left(hub)

    play(main)


@pytest.mark.parametrize(
    ("letters_of", "found"),
    [(1, "instance 'one!0' is running"), (0, "child")],
    ids=["running", "ended"],
)
def test_what_began_when_it_was_looked_up_stays(bad: set[str], letters_of: int, found: str):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        await put_away(hub, client, two=1)
        bad.add("two!0")
        family = r.Start("family", Raw(b'["one!0", "two!0"]'), fresh=True)
        ask(hub, 1, "family!1", family)
        await hub.until(lambda: host.loader.is_loading("two!0"))
        await hub.until(lambda: not host.loader.is_loading("one!0"))
        await client.start("letters", letters_of, "one!0")
        await pass_time(5)
        await left(hub, "one!0")
        before = await client.get("one!0")
        assert before is not None
        bad.clear()
        # The child is started over one that has ended, but not over one that runs.
        assert found in await client.result("family!1")
        await hub.quiet()
        await left(hub)
        stored = hub.store._hub.partitions[0].history["one!0"]
        assert len({execution_id for execution_id, _ in stored}) == 1
        after = await client.get("one!0")
        assert after is not None
        assert (after.execution_id == before.execution_id) is (letters_of == 1)

    play(main)


def test_a_parent_hears_of_its_child_beside_one_that_cannot_be_read(bad: set[str]):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        await put_away(hub, client, two=1)
        await client.start("mother", "two!0", "mother!0")
        await left(hub)
        bad.add("two!0")
        await client.raise_event("daughter!1", "go")
        await left(hub, "mother!0")
        await pass_time(5)
        await left(hub, "mother!0")
        bad.clear()
        assert await client.result("mother!0") == "home"
        assert await client.result("two!0") == [7]

    play(main)


# -- what goes on --------------------------------------------------------------------------------


def test_a_section_waits_for_an_entity_that_cannot_be_read(bad: set[str]):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        assert await transferred(client, "first!1") == [10, 10]
        await left(hub)
        first, second = map(str, PURSES)  # in the order in which they are locked
        bad.add(second)
        await client.start("transfer", None, "second!1")
        await hub.until(lambda: host.loader.is_loading(second))
        await left(hub)  # also what is locked already
        await client.start("transfer", None, "third!1")
        await pass_time(5)
        await left(hub, first)  # for who queues up there
        bad.clear()
        assert await client.result("second!1") == [20, 20]
        assert await client.result("third!1") == [30, 30]
        await left(hub)

    play(main)


async def transferred(client: HubClient, instance_id: str) -> list[int]:
    await client.start("transfer", None, instance_id)
    found: list[int] = await client.result(instance_id)
    return found


def test_a_timer_fires_and_a_query_is_answered_beside_one_that_cannot_be_read(bad: set[str]):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        await put_away(hub, client, one=1, two=1)
        bad.add("two!0")
        unanswered = ask(hub, 0, "two!0", r.Get())
        for _ in range(3):
            seen = await client.get("one!0")
            assert seen is not None
            assert seen.status == "Running"
            assert len(await client.history("one!0") or []) == 2
            await left(hub)
        assert unanswered == []
        bad.clear()
        await hub.until(lambda: unanswered)

    play(main)


def test_what_is_sent_again_does_not_pile_up_behind_what_cannot_be_read(bad: set[str]):
    async def main(hub: Hub, client: HubClient, host: PartitionHost) -> None:
        await put_away(hub, client, one=2, two=1)
        bad.add("two!0")
        send(hub, 1, "two", "one")
        await hub.until(lambda: 1 in host.receiving._waiting)
        await client.start("post", ["one!0"], "later!1")
        await pass_time(600)
        (waiting,) = host.receiving._waiting.values()
        assert [each.first for each in waiting] == [1, 3]
        bad.clear()
        assert await client.result("one!0") == [7, 7]
        assert await client.result("two!0") == [7]

    play(main)
