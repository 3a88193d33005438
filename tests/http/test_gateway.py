"""The gateway: to whom calls go, and what becomes of them when links break and routes change."""

import asyncio

import msgspec
import pytest
from msgspec import Raw

from shardrt.cluster import routing
from shardrt.cluster.calls import WAIT, compact, not_fresh
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin
from shardrt.errors import ProtocolViolation
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Answer, Ask, Call, Hello, Serving
from tests.fake_host import FakeHost
from tests.http.rig import GET, PARTITIONS, START, WELCOME, Rig
from tests.links.ends import End
from tests.loops import in_loop
from tests.waiting import eventually


@in_loop
async def test_calls_go_to_the_owner_and_answers_come_back() -> None:
    async with Rig() as rig:
        for seq in range(1, 101):
            rig.call(seq, START, f"i{seq}", low=seq)
        answers = await rig.answers(100)
        assert [answer.seq for answer in answers] == list(range(1, 101))
        assert bytes(answers[0].result) == b'["i1","e1",true]'
        for seq, each in enumerate(rig.one.received, 1):
            assert each.origin == Origin("c" * 32, seq, seq)
            assert each.partition == partition_of(each.instance_id, PARTITIONS)
            assert each.request == r.Start("hello", fresh=True)
        assert rig.gateway.calls_under_way == 0


@in_loop
async def test_clients_that_know_several_hosts_are_told_what_this_one_serves() -> None:
    async with Rig() as rig:
        knowing = End()
        connect_in_process(knowing.accept, rig.gateway.accept)
        knowing.link.send(Hello("d" * 32, wants_serving=True))
        await knowing.until(lambda: len(knowing.messages) == 2)
        rig.gateway.set_routes(["one", "http://there#b/1", None, "two"])
        rig.gateway.set_routes(["two", "http://there#b/1", None, "one"])
        rig.gateway.set_routes(["two", "one", "two", "one"], "a/1", 2)
        await knowing.until(lambda: len(knowing.messages) == 4)
        told = [Serving((0, 1, 2, 3), 0), Serving((0, 3), 0), Serving((0, 1, 2, 3), 2)]
        assert knowing.messages == [WELCOME, *told]
        assert knowing.batches[0] == 2, "what it serves comes with the welcome"
        knowing.link.close()
        await knowing.until(lambda: knowing.closed == 1)
        rig.gateway.set_routes(["two", None, None, None])
        rig.gateway.set_routes(["one"] * PARTITIONS)
        rig.call(1)
        await rig.answers(1)
        assert [type(each) for each in rig.client.messages] == [Answer], "it has not asked"
        assert len(knowing.messages) == 4


@in_loop
async def test_a_call_for_a_partition_without_owner_waits_for_one() -> None:
    async with Rig() as rig:
        routes: list[str | None] = ["one"] * PARTITIONS
        routes[partition_of("a", PARTITIONS)] = None
        rig.gateway.set_routes(routes)
        rig.call(1)
        rig.call(2, START, "b")
        assert [answer.seq for answer in await rig.answers(1)] == [2]
        routes[partition_of("a", PARTITIONS)] = "two"
        rig.gateway.set_routes(routes)
        assert [answer.seq for answer in await rig.answers(2)] == [2, 1]
        assert rig.two.received[0].origin == Origin("c" * 32, 1, 1)


@in_loop
async def test_calls_of_a_shard_that_died_are_sent_to_its_successor() -> None:
    async with Rig() as rig:
        rig.one.hold = True
        rig.call(1)
        rig.call(2, WAIT)
        rig.client.link.send(Ask(3, Raw(b'["count",{}]')))
        await rig.one.until(lambda: len(rig.one.held) == 2)
        rig.gateway.set_routes([None] * PARTITIONS)
        rig.gateway.set_routes(["two"] * PARTITIONS)
        answers = await rig.answers(2)
        assert {answer.seq for answer in answers} == {1, 3}
        start, wait = rig.two.received
        # The same request of the same client; but the first may have been applied.
        assert start.origin == Origin("c" * 32, 1, 1)
        assert start.request == r.Start("hello", fresh=False)
        assert wait.request == r.Wait()
        # What the old owner says now is too late.
        rig.one.release()
        rig.two.end("a")
        answers = await rig.answers(3)
        assert [answer.seq for answer in answers].count(1) == 1
        assert answers[-1].seq == 2


@in_loop
async def test_calls_wait_for_a_broken_link_to_come_back() -> None:
    async with Rig() as rig:
        rig.one.hold = True
        for seq in range(1, 6):
            rig.call(seq, START, f"i{seq}")
        await rig.one.until(lambda: len(rig.one.held) == 5)
        rig.one.hold = False
        rig.task.cancel()
        await rig.one.until(lambda: not rig.one.links)
        rig.call(6, START, "i6")
        await asyncio.sleep(0)
        rig.task = asyncio.create_task(rig.gateway.run())
        rig.gateway.set_routes(["one"] * PARTITIONS)
        answers = await rig.answers(6)
        assert [answer.seq for answer in answers] == [1, 2, 3, 4, 5, 6]
        repeated = rig.one.received[5:]
        assert [each.origin.seq for each in repeated] == [1, 2, 3, 4, 5, 6]


@in_loop
async def test_calls_without_an_owner_for_too_long_are_refused() -> None:
    async with Rig(stranded_s_max=0.0) as rig:
        rig.one.hold = True
        rig.call(1)
        await rig.one.until(lambda: bool(rig.one.held))
        rig.gateway.router.expire()
        assert rig.client.messages == []
        rig.task.cancel()
        await rig.one.until(lambda: not rig.one.links)
        await asyncio.sleep(0)
        rig.gateway.router.expire()
        refusal = await rig.refusal()
        assert (refusal.code, refusal.retry_after_s) == (
            "PartitionUnavailable",
            routing.RETRY_AFTER_S,
        )
        assert rig.gateway.calls_under_way == 0


@in_loop
async def test_a_client_that_leaves_is_forgotten() -> None:
    async with Rig() as rig:
        rig.one.hold = True
        rig.call(1)
        await rig.one.until(lambda: bool(rig.one.held))
        assert rig.gateway.calls_under_way == 1
        rig.client.link.close()
        await rig.client.until(lambda: rig.client.closed == 1)
        assert rig.gateway.calls_under_way == 0
        rig.one.release()
        rig.client = rig.new_client()
        rig.call(2)
        await rig.answers(2)


@in_loop
async def test_shards_forget_what_a_client_waited_for_when_it_leaves() -> None:
    async with Rig() as rig:
        rig.call(1)
        rig.call(2, Raw(b'["wait"]'))
        await rig.one.until(lambda: bool(rig.one.waits))
        [(seq, _)] = rig.one.waits["a"]
        rig.client.link.close()
        await rig.one.until(lambda: rig.one.forgotten == [seq])


@in_loop
async def test_a_request_too_deep_for_a_shard_to_read_is_refused_alone() -> None:
    async with Rig() as rig:
        rig.call(1, Raw(b'["raise","go",' + b"[" * 700 + b"]" * 700 + b"]"))
        assert (await rig.refusal()).code == "InputInvalid"
        rig.call(2)
        await rig.answers(2)
        assert len(rig.one.received) == 1


@in_loop
async def test_too_many_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "CALLS_PER_CALLER_MAX", 3)
    monkeypatch.setattr(routing, "CALLS_MAX", 5)
    async with Rig() as rig:
        rig.one.hold = True
        for seq in range(1, 5):
            rig.call(seq)
        refusal = await rig.refusal()
        assert rig.client.messages[0].seq == 4
        assert (refusal.code, refusal.retry_after_s) == (
            "Overloaded",
            routing.OVERLOADED_RETRY_AFTER_S,
        )
        rig.client = rig.new_client()
        for seq in range(1, 4):
            rig.call(seq)
        await rig.answers(2)
        assert rig.client.messages[1].seq == 3


@pytest.mark.parametrize("instance_id", ["", "x" * 256, "a\0b", "tab\t"])
@in_loop
async def test_ids_that_no_instance_can_have_are_refused(instance_id: str) -> None:
    async with Rig() as rig:
        rig.call(1, GET, instance_id)
        assert (await rig.refusal()).code == "InputInvalid"
        assert rig.one.received == []


@in_loop
async def test_questions_go_to_a_shard_or_the_supervisor() -> None:
    async with Rig(ask_supervisor=lambda _, told: told({"hosts": []}), stranded_s_max=0.0) as rig:
        rig.client.link.send(Ask(1, Raw(b'["cluster"]')))
        rig.client.link.send(Ask(2, Raw(b'["count",{}]')))
        rig.client.link.send(Ask(3, Raw(b'["what?"]')))
        answers = {answer.seq: answer for answer in await rig.answers(3)}
        assert bytes(answers[1].result) == b'{"hosts":[]}'
        assert bytes(answers[2].result) == b'{"Running":0}'
        assert answers[3].refusal is not None
        assert answers[3].refusal.code == "ProtocolViolation"
        rig.task.cancel()
        await rig.one.until(lambda: not rig.one.links)
        rig.client.link.send(Ask(4, Raw(b'["count",{}]')))
        await eventually(lambda: rig.gateway.calls_under_way == 1)
        rig.gateway.router.expire()
        assert (await rig.refusal(4)).code == "PartitionUnavailable"


@pytest.mark.parametrize(
    "message",
    [Call(1, 1, "a", GET), Ask(1, Raw(b'["cluster"]')), Hello(""), Hello("x" * 65)],
)
@in_loop
async def test_who_does_not_say_hello_properly_is_let_go(message: object) -> None:
    async with Rig() as rig:
        visitor = rig.gateway.accept(rig.client.link)
        with pytest.raises(ProtocolViolation):
            visitor.on_messages([message])


@pytest.mark.parametrize(("seq", "low"), [(-1, 0), (0, -1), (2**53 + 1, 0), (1, 2**64)])
@in_loop
async def test_numbers_beyond_all_reason_are_not_passed_on(seq: int, low: int) -> None:
    async with Rig() as rig:
        visitor = rig.gateway.accept(rig.client.link)
        visitor.on_messages([Hello("c")])
        with pytest.raises(ProtocolViolation):
            visitor.on_messages([Call(seq, low, "a", GET)])


@in_loop
async def test_draining_answers_what_is_under_way_and_starts_nothing() -> None:
    async with Rig() as rig:
        rig.one.hold = True
        rig.call(1)
        rig.call(2, WAIT)
        await rig.one.until(lambda: len(rig.one.held) == 2)
        draining = asyncio.create_task(rig.gateway.drain(20))
        await asyncio.sleep(0)
        rig.one.hold = False
        rig.call(3, START, "b")
        rig.call(4, GET, "b")
        await rig.answers(2)
        assert {answer.seq: answer.refusal is None for answer in rig.client.messages} == {
            3: False,
            4: True,
        }
        assert not draining.done()
        rig.one.release()
        await draining
        await rig.client.until(lambda: rig.client.closed == 1)
        assert [answer.seq for answer in rig.client.messages][-1] == 1


@in_loop
async def test_draining_has_an_end() -> None:
    async with Rig() as rig:
        rig.one.hold = True
        rig.call(1)
        await rig.one.until(lambda: bool(rig.one.held))
        await rig.gateway.drain(0.01)
        await rig.client.until(lambda: rig.client.closed == 1)


@in_loop
async def test_it_is_ready_once_all_partitions_were_served() -> None:
    rig = Rig()
    seen = [rig.gateway.is_ready]
    async with rig:
        seen.append(rig.gateway.is_ready)
        rig.gateway.set_routes([None, *["one"] * (PARTITIONS - 1)])
        seen.append(rig.gateway.is_ready)
        assert rig.gateway.partitions_served == PARTITIONS - 1
        rig.gateway.set_routes([])
        seen.append(rig.gateway.is_ready)
    assert seen == [False, True, True, False]


@in_loop
async def test_links_that_nothing_needs_any_more_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "SWEEP_S", 0.001)
    async with Rig() as rig:
        rig.one.hold = True
        rig.gateway.set_routes(["two"] * PARTITIONS)
        await rig.two.until(lambda: len(rig.two.links) == 1)
        await rig.one.until(lambda: not rig.one.links)
        rig.gateway.set_routes(["one"] * PARTITIONS)
        await rig.one.until(lambda: len(rig.one.links) == 1)


def test_only_starts_lose_their_freshness() -> None:
    assert msgspec.json.decode(not_fresh(START), type=r.Start) == r.Start("hello")
    for same in (GET, WAIT, Raw(b'["start"'), Raw(b'["start",7]'), not_fresh(START)):
        assert not_fresh(same) is same
    assert compact(Raw(b'["wait"]')) is WAIT
    assert compact(GET) is GET


@in_loop
async def test_over_real_sockets_a_shard_can_come_and_go() -> None:
    async with FakeHost.running(shards=2) as host, await host.client() as client:
        first, second = host.shards
        first.hold = True
        under_way = [
            asyncio.ensure_future(client.start("hello", instance_id=f"i{i}")) for i in range(20)
        ]
        await first.until(lambda: bool(first.held) and len(second.received) > 0)
        held = len(first.held)
        await first.close()
        await first.until(lambda: not first.links)
        first.hold = False
        await first.listen(host.paths[0])
        assert [(await each).instance_id for each in under_way] == [f"i{i}" for i in range(20)]
        assert len(first.received) == 2 * held
        assert len({each.origin.seq for each in first.received}) == held
