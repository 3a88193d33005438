"""What a shard keeps for who talks to it, and for how long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin, Raise, Refusal, Snapshot, Start, Wait
from shardrt.host import visitor as module
from shardrt.host.visitor import ACCEPTED_S, Visitor
from shardrt.links.messages import Accepted, Answer, Forget, Forward
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from shardrt.host.shard import Shard

app = App()
NEVER_S = 3600.0
SOON_S = 0.02
"""By then a start is durable."""


@app.orchestrator
async def waits(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_event("go")


@app.orchestrator
async def ends(ctx: OrchestrationContext, number: int) -> int:
    return 2 * number


class Wire:
    """The shard's end of a link that leads nowhere."""

    is_open = True
    is_congested = False

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.heard: Callable[[Any], None] = lambda _: None

    def send(self, message: Any) -> None:
        self.sent.append(message)
        self.heard(message)

    def close(self) -> None:
        """Nothing to end."""

    @property
    def told(self) -> list[Any]:
        """What was sent, in short: `Accepted`s, and numbers with a status or why it was refused."""
        return [each if type(each) is Accepted else (each.seq, outcome(each)) for each in self.sent]


def outcome(answer: Answer) -> str:
    if answer.refusal is not None:
        return answer.refusal.code
    return msgspec.json.decode(answer.result, type=Snapshot).status


def waiting(runtime: Runtime, instance_id: str) -> int:
    partition = partition_of(instance_id, runtime.host.partitions)
    return waiting_in(runtime.host.shard, partition, instance_id)


def waiting_in(shard: Shard, partition: int, instance_id: str) -> int:
    return len(shard.hosts[partition].core.waiters.get(instance_id, []))


def wait(runtime: Runtime, seq: int, instance_id: str) -> Forward:
    partition = partition_of(instance_id, runtime.host.partitions)
    return Forward(seq, partition, Origin("client", seq, 1), instance_id, Wait())


def run(seq: int, instance_id: str, start: Start, *, partition: int = 0, of: int = 0) -> Forward:
    """Return a start whose end is wanted; `of` is its number within the session."""
    return Forward(seq, partition, Origin("client", of or seq, 1), instance_id, start, True)


def test_waits_are_dropped_when_nobody_waits_any_more() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            await runtime.client.start(waits, instance_id="one")
            one, two = Wire(), Wire()
            visitors = [runtime.host.accept(one), runtime.host.accept(two)]
            visitors[0].on_messages([wait(runtime, seq, "one") for seq in (1, 2, 3)])
            visitors[1].on_messages([wait(runtime, 1, "one")])
            assert waiting(runtime, "one") == 4
            visitors[0].on_messages([Forget((1, 3, 9))])
            assert waiting(runtime, "one") == 2
            visitors[1].on_closed()
            assert waiting(runtime, "one") == 1
            await runtime.client.raise_event("one", "go")
            await asyncio.wait_for(runtime.client.handle("one").result(), 10)
            assert [answer.seq for answer in one.sent] == [2]
            assert two.sent == []

    asyncio.run(main())


# -- starts whose ends are wanted, in a runtime ----------------------------------------------------


class Visit:
    """A visitor of a runtime with one partition, and what it has heard."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.wire = Wire()
        self.visitor = runtime.host.accept(self.wire)

    def ask(self, *messages: Forward | Forget) -> None:
        self.visitor.on_messages(list(messages))

    @property
    def waiting(self) -> int:
        return waiting(self.runtime, "one")

    async def until_told(self, *told: object) -> None:
        await eventually(lambda: len(self.wire.sent) >= len(told))
        assert self.wire.told == [*told]


def visited(test: Callable[[Visit], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Give a test a visit; nothing is told as taken in it, but by `tell_at_once`."""

    def go(monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            async with Runtime(app, partitions=1) as runtime, asyncio.timeout(20):
                await test(Visit(runtime))

        monkeypatch.setattr(module, "ACCEPTED_S", NEVER_S)
        asyncio.run(main())

    return go


def tell_at_once(visit: Visit) -> None:
    """Tell what is taken so far, as if the time had come."""
    for _ in range(2):
        if visit.visitor._teller is not None:
            visit.visitor._teller.cancel()
        visit.visitor._tell_accepted()


@visited
async def test_a_start_is_answered_by_the_end_alone_if_that_comes_soon(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("ends", msgspec.Raw(b"21"), fresh=True)))
    await visit.until_told((1, "Completed"))
    [answer] = visit.wire.sent
    assert bytes(msgspec.json.decode(answer.result, type=Snapshot).output) == b"42"
    tell_at_once(visit)
    await asyncio.sleep(0)
    assert len(visit.wire.sent) == 1


@visited
async def test_a_start_is_told_as_taken_once_and_then_answered_by_the_end(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("waits")))
    await eventually(lambda: visit.waiting == 1)
    tell_at_once(visit)
    await visit.until_told(Accepted((1,)))
    assert visit.visitor._teller is None, "there is nothing more to tell"
    await visit.runtime.client.raise_event("one", "go")
    await visit.until_told(Accepted((1,)), (1, "Completed"))
    assert visit.waiting == 0


@visited
async def test_a_start_that_is_refused_is_refused(visit: Visit) -> None:
    await visit.runtime.client.start(waits, instance_id="one")
    visit.ask(run(1, "one", Start("waits")), run(2, "two", Start("unknown")))
    await eventually(lambda: len(visit.wire.sent) == 2)
    assert sorted(visit.wire.told) == [(1, "InstanceExists"), (2, "OrchestratorNotRegistered")]
    assert visit.waiting == 0
    assert not visit.visitor._runs


@visited
async def test_a_start_of_what_exists_may_be_answered_by_its_end(visit: Visit) -> None:
    await visit.runtime.client.start(waits, instance_id="one")
    visit.ask(run(1, "one", Start("waits", on_conflict="return")))
    await eventually(lambda: visit.waiting == 1)
    await visit.runtime.client.raise_event("one", "go")
    await visit.until_told((1, "Completed"))
    visit.ask(run(2, "one", Start("waits", on_conflict="return")))
    await visit.until_told((1, "Completed"), (2, "Completed"))
    visit.ask(run(3, "one", Start("waits", on_conflict="restart")))
    await eventually(lambda: visit.waiting == 1)
    assert len(visit.wire.sent) == 2


@visited
async def test_only_a_start_has_an_end_to_be_wanted(visit: Visit) -> None:
    visit.ask(msgspec.structs.replace(run(1, "one", Start("waits")), wants_end=False))
    await eventually(lambda: len(visit.wire.sent) == 1)
    visit.ask(msgspec.structs.replace(run(2, "one", Start("waits")), request=Raise("other")))
    await eventually(lambda: len(visit.wire.sent) == 2)
    assert [(each.seq, each.refusal) for each in visit.wire.sent] == [(1, None), (2, None)]
    assert visit.waiting == 0


@visited
async def test_the_same_start_once_more_is_answered_by_the_end_again(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("waits", fresh=True)))
    await eventually(lambda: visit.waiting == 1)
    other = Visit(visit.runtime)
    other.ask(run(7, "one", Start("waits"), of=1))  # as after its link has broken
    await eventually(lambda: visit.waiting == 2)
    tell_at_once(other)
    await visit.runtime.client.raise_event("one", "go")
    await visit.until_told((1, "Completed"))
    await other.until_told(Accepted((7,)), (7, "Completed"))
    other.ask(run(8, "one", Start("waits"), of=1))
    await other.until_told(Accepted((7,)), (7, "Completed"), (8, "Completed"))
    found = await visit.runtime.client.get("one", history=True)
    assert found is not None
    assert found.history is not None
    assert [each.kind for each in found.history].count("ExecutionStarted") == 1


@visited
async def test_a_link_that_ends_before_its_start_is_durable_leaves_nothing(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("waits")))
    visit.visitor.on_closed()
    await visit.runtime.client.start(waits, instance_id="one", on_conflict="return")
    assert visit.waiting == 0
    assert visit.visitor._teller is None
    assert visit.wire.sent == []


@visited
async def test_a_link_that_ends_leaves_nothing_of_what_is_durable(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("waits")))
    await eventually(lambda: visit.waiting == 1)
    teller = visit.visitor._teller
    visit.visitor.on_closed()
    assert visit.waiting == 0
    assert teller is not None
    assert teller.cancelled()
    assert visit.wire.sent == []


@visited
async def test_a_link_that_ends_leaves_nothing_of_what_is_taken(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("waits")))
    await eventually(lambda: visit.waiting == 1)
    tell_at_once(visit)
    visit.visitor.on_closed()
    assert visit.waiting == 0
    assert visit.wire.told == [Accepted((1,))]


@visited
async def test_what_is_taken_can_be_forgotten(visit: Visit) -> None:
    for seq in (1, 2, 3):
        visit.ask(run(seq, "one", Start("waits", on_conflict="return")))
        await eventually(lambda seq=seq: visit.waiting == seq)
    visit.ask(Forget((2,)))
    assert visit.waiting == 2
    tell_at_once(visit)
    await visit.until_told(Accepted((1, 3)))
    visit.ask(Forget((1,)))
    assert visit.waiting == 1
    await visit.runtime.client.raise_event("one", "go")
    await visit.until_told(Accepted((1, 3)), (3, "Completed"))


# -- when it is told, and when partitions move, in virtual time ------------------------------------


@asynccontextmanager
async def visited_hub() -> AsyncIterator[tuple[Hub, Visitor, Wire]]:
    """A hub of one partition that stays away once it is given up, and a visitor of its owner."""
    async with Hub(app, partitions=1, shards=1) as hub:
        await HubClient(hub).get("it is served by now")
        hub.moves = False
        wire = Wire()
        yield hub, Visitor(hub.members[0].shard, wire), wire
        assert hub.broken == []


def test_most_ends_come_before_anything_is_told() -> None:
    async def main() -> None:
        async with visited_hub() as (_, visitor, wire):
            start = Start("ends", msgspec.Raw(b"1"))
            for seq in range(1, 101):
                visitor.on_messages([run(seq, f"i{seq}", start)])
                await pass_time(ACCEPTED_S / 7)
            await pass_time(1.0)
            assert wire.told == [(seq, "Completed") for seq in range(1, 101)]

    run_virtual(main())


def test_what_is_durable_is_told_neither_at_once_nor_late_and_together() -> None:
    async def main() -> None:
        async with visited_hub() as (_, visitor, wire):
            loop = asyncio.get_running_loop()
            durable_s: dict[int, float] = {}
            told: list[tuple[float, tuple[int, ...]]] = []
            wire.heard = lambda taken: told.append((loop.time(), taken.seqs))
            for ms in range(440):
                if ms < 400 and ms % 8 == 0:
                    seq = ms // 8 + 1
                    visitor.on_messages([run(seq, f"i{seq}", Start("waits"))])
                await pass_time(0.001)
                for each in visitor._waits:
                    durable_s.setdefault(each, loop.time())
            await pass_time(1.0)
            assert [seq for _, seqs in told for seq in seqs] == list(range(1, 51))
            for at_s, seqs in told:
                for seq in seqs:
                    assert ACCEPTED_S <= at_s - durable_s[seq] + 0.001 <= 2 * ACCEPTED_S + 0.002
            assert len(told) <= 12, "about five at a time"
            assert visitor._teller is None

    run_virtual(main())


def test_nothing_is_told_of_a_start_that_is_not_durable() -> None:
    async def main() -> None:
        async with visited_hub() as (hub, visitor, wire):
            visitor.on_messages([run(1, "durable", Start("waits"))])
            await pass_time(SOON_S)
            hub.calls.held.add("append")
            visitor.on_messages([run(2, "held", Start("waits"))])
            await pass_time(10.0)
            assert wire.told == [Accepted((1,))]
            assert waiting_in(hub.members[0].shard, 0, "held") == 0
            hub.calls.held.clear()
            await pass_time(1.0)
            assert wire.told == [Accepted((1,)), Accepted((2,))]

    run_virtual(main())


MOVING = "PartitionUnavailable"


def test_a_start_whose_partition_is_lost_before_it_is_durable_is_refused() -> None:
    async def main() -> None:
        async with visited_hub() as (hub, visitor, wire):
            hub.calls.held.add("append")
            visitor.on_messages([run(1, "one", Start("waits"))])
            await pass_time(1.0)
            hub.members[0].shard.discard(0)
            hub.calls.held.clear()
            await pass_time(1.0)
            assert wire.told == [(1, MOVING)]
            assert not visitor._runs
            assert not visitor._waits
            visitor.on_messages([run(2, "two", Start("waits"))])
            assert wire.told == [(1, MOVING), (2, MOVING)]

    run_virtual(main())


@pytest.mark.parametrize("is_told", [False, True])
def test_who_waits_for_the_end_is_refused_when_the_partition_goes(*, is_told: bool) -> None:
    async def main() -> None:
        async with visited_hub() as (hub, visitor, wire):
            visitor.on_messages([run(1, "one", Start("waits"))])
            await pass_time(1.0 if is_told else SOON_S)
            assert [*visitor._waits] == [1]
            hub.revoke(0)
            await pass_time(1.0)
            # In any case before the refusal, which is only of the waiting.
            assert wire.told == [Accepted((1,)), (1, MOVING)]
            assert not visitor._waits

    run_virtual(main())


def test_a_start_that_becomes_durable_while_its_partition_goes_is_refused_and_recognised() -> None:
    async def main() -> None:
        async with visited_hub() as (hub, visitor, wire):
            shard = hub.members[0].shard
            hub.calls.held_answers.add("append")  # it is in the store, and nobody knows
            visitor.on_messages([run(1, "one", Start("waits", fresh=True))])
            await pass_time(1.0)
            shard.hosts[0].freeze()
            assert wire.told == []
            hub.calls.held_answers.clear()
            hub.revoke(0)
            await hub.until(lambda: not shard.hosts)
            assert wire.told == [Accepted((1,)), (1, MOVING)]
            await hub.assign(0, hub.members[0])
            await HubClient(hub, "other").get("one")
            visitor.on_messages([run(2, "one", Start("waits"), of=1)])
            await pass_time(1.0)
            assert wire.told[2:] == [Accepted((2,))]
            await HubClient(hub, "another").raise_event("one", "go")
            await pass_time(1.0)
            assert wire.told[3:] == [(2, "Completed")]

    run_virtual(main())


@visited
async def test_what_is_forgotten_before_it_is_durable_leaves_nothing(visit: Visit) -> None:
    visit.ask(run(1, "one", Start("waits")))
    visit.visitor.on_messages([Forget((1,))])
    await visit.runtime.client.start(waits, instance_id="one", on_conflict="return")
    assert visit.waiting == 0
    assert not visit.visitor._runs
    assert visit.wire.sent == []


@visited
async def test_a_copy_that_is_refused_leaves_the_other_its_answer(visit: Visit) -> None:
    visit.visitor._runs[1] = 2
    first = run(1, "one", Start("waits"))
    visit.visitor._answer_run(first, Answer(1, refusal=Refusal("Overloaded", "no")))
    await visit.runtime.client.start(waits, instance_id="one")
    visit.visitor._answer_run(first, Answer(1))
    await eventually(lambda: visit.waiting == 1)
    assert visit.wire.told == [(1, "Overloaded")]
    assert not visit.visitor._runs
