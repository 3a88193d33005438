"""Hosts that bring each other calls and messages, over real links."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from shardrt.config import Tokens
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.core.messages import DeliverEvent
from shardrt.host.keeping import keep_also_peers, keep_unix
from shardrt.host.network import Network
from shardrt.links.messages import Acknowledge, Deliver, Resend
from shardrt.links.peer import peer_url, target_of
from tests.fake_host import LIMITS, PARTITIONS, FakeHost
from tests.loops import in_loop
from tests.waiting import eventually

HERE = next(name for name in "abcdefghijklmnop" if partition_of(name, PARTITIONS) == 0)
THERE = next(name for name in "abcdefghijklmnop" if partition_of(name, PARTITIONS) == 1)


@asynccontextmanager
async def two_hosts(**options: Any) -> AsyncIterator[tuple[FakeHost, FakeHost]]:
    """Two hosts: the first serves partition 0, the second all others; both know it."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(FakeHost.running(owner="one/1", **options))
        other = await stack.enter_async_context(FakeHost.running(owner="two/1", **options))
        others = PARTITIONS - 1
        one.gateway.set_routes([one.paths[0], *[target_of(other.url, "two/1")] * others], "one/1")
        other.gateway.set_routes([target_of(one.url, "one/1"), *[other.paths[0]] * others], "two/1")
        yield one, other


@in_loop
async def test_any_host_leads_to_any_instance() -> None:
    async with two_hosts() as (one, other), await one.client() as client:
        for name in (HERE, THERE):
            await client.start("hello", {"a": 1}, instance_id=name)
        assert list(one.shard.instances) == [HERE]
        assert list(other.shard.instances) == [THERE]
        waiting = asyncio.ensure_future(client.handle(THERE).result())
        await other.shard.until(lambda: THERE in other.shard.waits)
        other.shard.end(THERE, output=b"7")
        assert await waiting == 7
        async with await other.client() as far:
            assert (await far.get(HERE)) is not None


@in_loop
async def test_a_host_forgets_what_nobody_waits_for_elsewhere() -> None:
    async with two_hosts() as (one, other):
        async with await one.client() as client:
            await client.start("hello", instance_id=THERE)
            waiting = asyncio.ensure_future(client.handle(THERE).result())
            await other.shard.until(lambda: THERE in other.shard.waits)
            [(seq, _)] = other.shard.waits[THERE]
            waiting.cancel()
        await other.shard.until(lambda: other.shard.forgotten == [seq])


@in_loop
async def test_ends_come_from_other_hosts_too() -> None:
    async with two_hosts() as (one, other), await one.client() as client:
        session = client._session
        for hosts in ("of now", "of an older release"):
            other.shard.is_old = hosts != "of now"
            running = asyncio.ensure_future(client.execute("hello", instance_id=THERE))
            await other.shard.until(lambda: THERE in other.shard.waits)
            if not other.shard.is_old:
                other.shard.tell_accepted(THERE)
            await eventually(lambda: not session.is_calling)
            assert one.gateway.calls_under_way == other.gateway.calls_under_way == 0
            other.shard.end(THERE, output=b"7")
            assert await running == 7
            del other.shard.instances[THERE]
        assert [each.wants_end for each in other.shard.received] == [True, True, False]


@in_loop
async def test_a_host_forgets_what_was_taken_elsewhere_and_nobody_waits_for() -> None:
    async with two_hosts() as (one, other):
        async with await one.client() as client:
            running = asyncio.ensure_future(client.execute("hello", instance_id=THERE))
            await other.shard.until(lambda: THERE in other.shard.waits)
            [(seq, _)] = other.shard.waits[THERE]
            other.shard.tell_accepted(THERE)
            await eventually(lambda: not client._session.is_calling)
            running.cancel()
        await other.shard.until(lambda: other.shard.forgotten == [seq])


@in_loop
async def test_what_was_taken_is_waited_for_when_the_link_between_hosts_comes_back() -> None:
    async with two_hosts() as (one, other), await one.client() as client:
        ids = [
            name
            for name in (f"i{each}" for each in range(20))
            if partition_of(name, PARTITIONS) > 0
        ][:2]
        runs = [asyncio.ensure_future(client.execute("hello", instance_id=each)) for each in ids]
        await other.shard.until(lambda: len(other.shard.waits) == 2)
        other.shard.tell_accepted(ids[0])
        await eventually(lambda: len(client._session._waits) == 1)
        await other.restart_http()
        await other.shard.until(lambda: len(other.shard.received) == 4)
        again = {each.instance_id: each.request for each in other.shard.received[2:]}
        assert again == {ids[0]: r.Wait(), ids[1]: r.Start("hello")}
        for each in ids:
            other.shard.end(each, output=b"1")
        assert await asyncio.gather(*runs) == [1, 1]


@in_loop
async def test_a_link_between_hosts_comes_back() -> None:
    async with two_hosts() as (one, other), await one.client() as client:
        await client.start("hello", instance_id=THERE)
        await other.stop_http()
        asked = asyncio.ensure_future(client.get(THERE))
        await eventually(lambda: one.gateway.calls_under_way == 1)
        await other.start_http()
        assert (await asked) is not None


@in_loop
async def test_messages_between_partitions_reach_the_shards_of_another_host() -> None:
    async with two_hosts() as (one, _):
        target = target_of(one.url, "one/1")
        reached: list[set[int]] = []
        network = Network(
            "/nowhere",
            lambda _: None,
            keep=keep_also_peers(keep_unix, Tokens(), LIMITS.payload_bytes_max),
            reached=reached.append,
        )
        network.route([target, "/nowhere"])
        running = asyncio.create_task(network.run())
        deliver = Deliver(1, 0, 1, (DeliverEvent(HERE, "go", Raw(b'"text \xc3\xa4"')),))
        network.send(0, deliver)  # lost, but it makes the link
        await eventually(lambda: reached == [{0, 1}, {0}])
        for message in (deliver, Acknowledge(0, 1, 3), Resend(0, 1, 2), Acknowledge(1, 0, 9)):
            network.send(0, message)
        # The last is for a stream of a partition that is not served there.
        await one.shard.until(lambda: len(one.shard.received) == 3)
        assert one.shard.received == [deliver, Acknowledge(0, 1, 3), Resend(0, 1, 2)]
        network.route([None, "/nowhere"])
        await eventually(lambda: not one.gateway._peers)
        running.cancel()


@in_loop
async def test_who_expects_another_host_is_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    async with two_hosts() as (one, _):
        for owner in ("one/2", "", "one/1&x"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(peer_url(target_of(one.url, owner)))
            assert refused.value.response.status_code == 421
        assert not [each for each in caplog.records if each.name.startswith("uvicorn")]
        caplog.set_level(logging.WARNING)
        one.gateway.set_routes([target_of(one.url, "gone/1")] * PARTITIONS, "one/1")
        async with await one.client() as client:
            asked = asyncio.ensure_future(client.get(HERE))
            await eventually(lambda: "another host, or another hub, answers there" in caplog.text)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


@in_loop
async def test_the_token_is_asked_of_hosts_too() -> None:
    async with FakeHost.running(token="right", owner="one/1") as one:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(peer_url(target_of(one.url, "one/1")), additional_headers=headers)
            assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    "frame", [b"", b'[["hello","session"]]', b'[["call",1,1,"a",["get"]]]', b"[" * 2000]
)
@in_loop
async def test_a_host_that_talks_nonsense_is_let_go(frame: bytes) -> None:
    async with FakeHost.running(owner="one/1") as one:
        async with connect(peer_url(target_of(one.url, "one/1"))) as connection:
            await connection.send(frame)
            with pytest.raises(ConnectionClosed):
                await connection.recv()


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (b'[["forward",1,99,["c",1,1],"a",["get"]]]', b'[["not-owner",1,null]]'),
        (b'[["forward",1,-1,["c",1,1],"a",["get"]]]', b'[["not-owner",1,null]]'),
        (
            b'[["deliver",1,99,1,[]],["ack",-5,1,1],["resend",99,1,1],["forget",[7]]]',
            b"",
        ),
    ],
)
@in_loop
async def test_partitions_that_do_not_exist_are_nobodys(frame: bytes, answer: bytes) -> None:
    async with FakeHost.running(owner="one/1") as one:
        async with connect(peer_url(target_of(one.url, "one/1"))) as connection:
            await connection.send(frame)
            if not answer:
                await connection.send(b'[["forward",2,99,["c",1,1],"a",["get"]]]')
            assert await connection.recv() == (answer or b'[["not-owner",2,null]]')
