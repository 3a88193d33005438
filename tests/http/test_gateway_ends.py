"""The gateway: starts that are answered by the ends of their instances."""

import asyncio

import msgspec

from shardrt.client.session import Session
from shardrt.core import requests as r
from shardrt.core.requests import Origin
from shardrt.links.messages import Accepted
from tests.http.rig import PARTITIONS, START, WELCOME, Rig
from tests.loops import in_loop


@in_loop
async def test_shards_forget_what_a_client_started_to_wait_for_when_it_leaves() -> None:
    async with Rig() as rig:
        rig.execute(1, "a")
        await rig.one.until(lambda: "a" in rig.one.waits)
        [(seq, _)] = rig.one.waits["a"]
        rig.client.link.close()
        await rig.one.until(lambda: rig.one.forgotten == [seq])


@in_loop
async def test_a_start_whose_end_is_wanted_is_answered_by_it() -> None:
    async with Rig() as rig:
        rig.execute(1, "a")
        rig.call(2, START, "b")
        await rig.one.until(lambda: "a" in rig.one.waits)
        assert [each.wants_end for each in rig.one.received] == [True, False]
        assert [answer.seq for answer in await rig.answers(1)] == [2]
        assert rig.gateway.calls_under_way == 0, "nobody need wait for it: made again it is found"
        assert len(rig.gateway.router.pending) == 1
        rig.one.end("a", output=b"7")
        await rig.answers(2)
        ended = msgspec.json.decode(rig.client.messages[1].result, type=r.Snapshot)
        assert (rig.client.messages[1].seq, ended.instance_id) == (1, "a")
        assert not rig.gateway.router.pending


@in_loop
async def test_clients_hear_of_their_own_starts_that_are_taken() -> None:
    async with Rig() as rig:
        other = rig.new_client("d" * 32)
        await other.until(lambda: other.messages == [WELCOME])
        other.messages.clear()
        for seq in (1, 2, 3):
            rig.execute(seq, f"i{seq}")
            rig.execute(10 * seq, f"o{seq}", other)
        await rig.one.until(lambda: len(rig.one.waits) == 6)
        [link] = rig.one.links
        numbers = {each: seq for each, [(seq, _)] in rig.one.waits.items()}
        link.send(Accepted(tuple(numbers[each] for each in ("o1", "i3", "o2", "i1"))))
        await rig.answers(1)
        await other.until(lambda: bool(other.messages))
        assert (rig.client.messages, other.messages) == ([Accepted((3, 1))], [Accepted((10, 20))])
        assert sum(call.is_wait for call in rig.gateway.router.pending.values()) == 4
        link.send(Accepted((numbers["i1"], 10_000)))  # once more, and of nobody
        for each in numbers:
            rig.one.end(each)
        await rig.answers(4)
        await other.until(lambda: len(other.messages) == 4)
        assert [answer.seq for answer in rig.client.messages[1:]] == [1, 2, 3]
        assert [answer.seq for answer in other.messages[1:]] == [10, 20, 30]


@in_loop
async def test_what_is_taken_is_waited_for_when_its_shard_dies_and_else_started_again() -> None:
    async with Rig() as rig:
        for seq, instance_id in enumerate("ab", 1):
            rig.execute(seq, instance_id)
        await rig.one.until(lambda: len(rig.one.waits) == 2)
        rig.one.tell_accepted("a")
        await rig.answers(1)
        rig.gateway.set_routes(["two"] * PARTITIONS)
        await rig.two.until(lambda: len(rig.two.received) == 2)
        again = {each.instance_id: each for each in rig.two.received}
        assert (again["a"].request, again["a"].wants_end) == (r.Wait(), False)
        assert (again["b"].request, again["b"].wants_end) == (r.Start("hello"), True)
        assert again["a"].origin == Origin("c" * 32, 1, 1)
        assert again["b"].origin == Origin("c" * 32, 2, 1)


@in_loop
async def test_shards_forget_what_was_taken_of_a_client_that_leaves() -> None:
    async with Rig() as rig:
        rig.execute(1, "a")
        await rig.one.until(lambda: "a" in rig.one.waits)
        [(seq, _)] = rig.one.waits["a"]
        rig.one.tell_accepted("a")
        await rig.answers(1)
        rig.client.link.close()
        await rig.one.until(lambda: rig.one.forgotten == [seq])


@in_loop
async def test_clients_in_this_process_may_want_ends_too() -> None:
    async with Rig() as rig:
        session = Session(rig.gateway.dial())
        await session.open()
        running = asyncio.ensure_future(session.execute("a", r.Start("hello")))
        await rig.one.until(lambda: "a" in rig.one.waits)
        rig.one.end("a")
        assert (await running).instance_id == "a"
        assert len(rig.one.received) == 1
        await session.close()


@in_loop
async def test_draining_does_not_wait_for_ends() -> None:
    async with Rig() as rig:
        rig.execute(1, "a")
        await rig.one.until(lambda: "a" in rig.one.waits)
        await rig.gateway.drain(20)
        await rig.client.until(lambda: rig.client.closed == 1)
        assert rig.client.messages == []
