"""Lines to several hosts, in virtual time: which one a request takes, whatever becomes of them."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from shardrt.client.session import Session
from shardrt.client.wire import TypedCall
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.errors import ConnectionLost, InstanceExists, Unauthorized
from shardrt.links.admin import Cluster
from shardrt.testing.virtual import pass_time
from tests.client.several_hosts import (
    PARTITIONS,
    SOON_S,
    STARTED,
    Host,
    opened,
    start,
    started,
    virtual,
)


@virtual
async def test_requests_go_to_the_host_that_serves_their_partition() -> None:
    a, b, c = Host(0), Host(1, 3), Host()
    async with opened(a, b, c) as session:
        names = [f"i{number}" for number in range(40)]
        calls = [session.submit(name, start()) for name in names]
        question = session.submit("", Cluster())
        waiting = [asyncio.ensure_future(session.wait(f"w!{each}")) for each in range(PARTITIONS)]
        await pass_time(SOON_S)
        got = {host: [m for m in host.messages if type(m) is TypedCall] for host in (a, b)}
        assert {partition_of(each.instance_id, PARTITIONS) for each in got[a]} == {0, 2}
        assert {partition_of(each.instance_id, PARTITIONS) for each in got[b]} == {1, 3}
        assert len(got[a]) + len(got[b]) == 44
        assert 41 in a.taken(), "questions go by the first line, as what nobody serves does"
        assert c.messages == []
        for host in (a, b):
            host.answer(*range(1, 42))
        await asyncio.gather(*calls, question)
        for each in waiting:
            each.cancel()


@virtual
async def test_all_goes_by_one_line_if_hosts_are_too_old_to_say_what_they_serve() -> None:
    a, b = Host(0, 1, is_old=True), Host(2, 3, is_old=True)
    async with opened(a, b) as session:
        calls = await started(session, *(f"i{number}" for number in range(20)))
        assert a.taken() == list(range(1, 21))
        a.answer(*range(1, 21))
        await asyncio.gather(*calls)
        a.link.close()
        [call] = await started(session, "x")
        assert b.taken() == [21]
        b.answer(21)
        await call
        assert b.opened == 1, "the line was there"


@virtual
async def test_what_a_lost_link_owed_goes_by_another_as_the_same_request() -> None:
    a, b = Host(0), Host(1)
    async with opened(a, b) as session:
        first = session.submit("x!0", start(fresh=True))
        other = session.submit("x!1", start(fresh=True))
        waiting = asyncio.ensure_future(session.wait("w!0"))
        last = session.submit("y!0", start(fresh=True))
        await pass_time(SOON_S)
        assert (a.taken(), b.taken()) == ([1, 3, 4], [2])
        a.link.close()
        await pass_time(SOON_S)
        # They may have been applied: they are not fresh any more. What b owes stays with it.
        assert b.messages == [
            TypedCall(1, 1, "x!0", start()),
            TypedCall(3, 1, "y!0", start()),
            TypedCall(4, 1, "w!0", r.Wait()),
        ]
        b.answer(1, 2, 3)
        await asyncio.gather(first, other, last)
        waiting.cancel()
        await pass_time(1.0)
        [again] = await started(session, "z!0")
        assert a.taken() == [5], "it is back"
        a.answer(5)
        await again


@virtual
async def test_what_is_under_way_moves_with_its_partition_before_what_comes_later() -> None:
    a, b = Host(0, 1), Host()
    async with opened(a, b) as session:
        calls = [session.submit("x!0", r.Raise("e", Raw(b"1"))) for _ in range(3)]
        stays = session.submit("x!1", start())
        waiting = asyncio.ensure_future(session.wait("w!0"))
        await pass_time(SOON_S)
        assert a.taken() == [1, 2, 3, 4, 5]
        b.say(0)
        await pass_time(SOON_S)
        a.say(1)
        calls.append(session.submit("x!0", r.Raise("e", Raw(b"1"))))
        await pass_time(SOON_S)
        assert (a.taken(), b.taken()) == ([], [1, 2, 3, 6])
        # Whoever answers first: the other answers as well, and nobody hears it.
        a.answer(1, 4)
        b.answer(1, 2, 3, 6)
        a.answer(2, 3)
        assert await asyncio.gather(*calls, stays) == [STARTED] * 5
        waiting.cancel()


@virtual
async def test_a_host_that_does_not_run_holds_up_nothing_that_another_serves() -> None:
    a, b = Host(0, 1), Host(2, 3)
    async with opened(a, b) as session:
        before = session.submit("x!0", start())
        others = [session.submit("x!2", start()), session.submit("x!3", start())]
        await pass_time(SOON_S)
        b.answer(2, 3)
        await asyncio.gather(*others)
        b.say(0, 1, 2, 3)  # a says nothing: it is frozen
        [after] = await started(session, "y!1")
        [later] = await started(session, "z!1")
        assert b.taken() == [2, 3, 1, 4, 5]
        b.answer(1, 4, 5)
        await asyncio.gather(before, after, later)


@virtual
async def test_what_another_copy_may_still_do_is_not_refused() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        done, refused, lost = await started(session, *["x!0"] * 3)
        b.say(0)
        await pass_time(SOON_S)
        assert b.taken() == a.taken() == [1, 2, 3]
        for seq in (1, 2, 3):
            b.refuse(seq)
        await pass_time(1.0)
        assert [each.done() for each in (done, refused, lost)] == [False] * 3
        a.answer(1)
        a.refuse(2)
        await pass_time(SOON_S)
        assert await done == STARTED
        with pytest.raises(InstanceExists):
            await refused
        a.link.close()
        await pass_time(SOON_S)
        assert b.taken() == [3], "asked once more: nobody else will answer"
        b.refuse(3)
        with pytest.raises(InstanceExists):
            await lost


@virtual
async def test_a_refusal_of_who_has_lost_the_partition_says_nothing() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        [call] = await started(session, "x!0")
        b.say(0)
        await pass_time(SOON_S)
        a.refuse(1, "PartitionUnavailable")
        a.refuse(1)
        await pass_time(1.0)
        assert b.taken() == [1], "and it is not asked for again"
        b.refuse(1)
        with pytest.raises(InstanceExists):
            await call


@virtual
async def test_a_passing_refusal_is_tried_again_where_the_partition_is_by_then() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        [call] = await started(session, "x!0")
        a.refuse(1, "PartitionUnavailable")
        b.say(0)
        await pass_time(1.0)
        assert (a.taken(), b.taken()) == ([1], [1])
        b.answer(1)
        await call


@virtual
async def test_a_partition_stays_with_its_last_owner_until_another_has_it() -> None:
    a, b, c = Host(0), Host(1), Host(2)
    async with opened(a, b, c) as session:
        b.say()
        calls = await started(session, "x!1")
        assert (a.taken(), b.taken()) == ([], [1])
        c.say(1, 2)
        await pass_time(SOON_S)
        a.say(0, 1)
        await pass_time(SOON_S)
        assert (c.taken(), a.taken()) == ([1], [1])
        a.say(0)  # c has not said that it does not serve it any more
        calls += await started(session, "y!1")
        calls += await started(session, "z!1")
        assert c.taken() == [1, 2, 3]
        c.answer(1, 2, 3)
        await asyncio.gather(*calls)


@virtual
async def test_what_is_settled_counts_over_all_lines() -> None:
    a, b = Host(0), Host(1)
    async with opened(a, b) as session:
        calls = await started(session, "x!0", "x!1")
        b.answer(2)
        await calls[1]
        calls += await started(session, "y!1")
        assert b.messages[-1].low == 1, "a has not answered"
        a.answer(1)
        await calls[0]
        calls += await started(session, "y!0")
        assert a.messages[-1].low == 3
        a.answer(4)
        b.answer(3)
        await asyncio.gather(*calls)


@virtual
async def test_each_line_is_dialled_again_after_pauses_of_its_own() -> None:
    a, b = Host(0), Host(1)
    b.trouble = ConnectionLost("away")
    async with opened(a, b):
        await pass_time(20.0)
        pauses = [late - soon for soon, late in zip(b.dialled_s, b.dialled_s[1:], strict=False)]
        assert 20 < len(pauses) < 60
        assert pauses[0] <= 0.02
        assert max(pauses) > 0.5
        a.link.close()
        await pass_time(0.03)
        assert a.opened == 2
        b.trouble = None
        await pass_time(1.0)
        b.link.close()
        await pass_time(0.03)
        assert b.opened == 2, "they start over once it was there"


@virtual
async def test_a_host_that_lets_one_wait_for_its_welcome_holds_up_nothing() -> None:
    a, b = Host(0), Host(1)
    b.is_up.clear()
    async with opened(a, b) as session:
        calls = await started(session, *(f"x!{each}" for each in (0, 1)))
        assert a.taken() == [1, 2]
        a.answer(1, 2)
        await asyncio.gather(*calls)
    assert len(b.dialled_s) == 1


@virtual
async def test_all_goes_out_with_whichever_link_is_first_when_there_was_none() -> None:
    a, b = Host(0), Host(1)
    async with opened(a, b) as session:
        for host in (a, b):
            host.trouble = ConnectionLost("away")
            host.link.close()
        await pass_time(SOON_S)
        assert not session.is_connected
        calls = [session.submit(f"x!{each}", start(fresh=True)) for each in (0, 1)]
        waiting = asyncio.ensure_future(session.wait("w!1"))
        await pass_time(1.0)
        b.trouble = None
        await pass_time(2.0)
        assert b.messages == [
            TypedCall(1, 1, "x!0", start(fresh=True)),
            TypedCall(2, 1, "x!1", start(fresh=True)),
            TypedCall(3, 1, "w!1", r.Wait()),
        ]
        b.answer(1, 2)
        await asyncio.gather(*calls)
        waiting.cancel()


@virtual
async def test_a_host_of_another_hub_is_not_used() -> None:
    a, b = Host(0, 1), Host(*range(8), partitions=8)
    async with opened(a, b) as session:
        await pass_time(5.0)
        [call] = await started(session, "x!1")
        assert (a.taken(), b.taken()) == ([1], [])
        a.answer(1)
        await call
        assert b.closed == b.opened > 1
        # Both were replaced: it is the hub now.
        a.trouble = ConnectionLost("away")
        a.link.close()
        await pass_time(2.0)
        [call] = await started(session, "x!7")
        assert b.taken() == [2]
        b.answer(2)
        await call


@virtual
async def test_a_token_is_taken_no_more_only_if_no_host_takes_it() -> None:
    a, b = Host(0), Host(1)
    async with opened(a, b) as session:
        b.trouble = Unauthorized("no")
        b.link.close()
        call = session.submit("x!1", start())
        await pass_time(2.0)
        assert not call.done()
        assert a.taken() == [1]
        a.trouble = Unauthorized("no")
        a.link.close()
        await pass_time(2.0)
        with pytest.raises(Unauthorized):
            await call


@virtual
async def test_what_a_host_served_is_forgotten_when_another_release_has_taken_its_place() -> None:
    a, b = Host(0), Host(1)
    async with opened(a, b) as session:
        b.is_old = True
        b.link.close()
        await pass_time(1.0)
        assert b.opened == 2
        [call] = await started(session, "x!1")
        assert (a.taken(), b.taken()) == ([1], [])
        a.answer(1)
        await call


@virtual
async def test_what_nobody_serves_stays_with_one_line_for_as_long_as_it_is_up() -> None:
    a, b, c = Host(), Host(), Host()
    a.trouble = ConnectionLost("away")
    async with opened(a, b, c) as session:
        a.trouble = None
        await pass_time(2.0)
        c.link.close()
        calls = [session.submit("x!0", start())]
        await pass_time(2.0)
        calls += await started(session, "y!0")
        assert (a.opened, c.opened) == (1, 2)
        assert (a.taken(), b.taken(), c.taken()) == ([], [1, 2], [])
        b.answer(1, 2)
        await asyncio.gather(*calls)


@virtual
async def test_opening_takes_the_first_host_that_answers() -> None:
    a, b = Host(0), Host(1)
    a.trouble = ConnectionLost("a is away")
    async with opened(a, b) as session:
        [call] = await started(session, "x!0")
        assert b.taken() == [1]
        b.answer(1)
        await call
    b.trouble = ConnectionLost("b is away")
    with pytest.raises(ConnectionLost, match="b is away"):
        await Session(a.dial, b.dial).open()
    a.trouble = Unauthorized("no")
    with pytest.raises(Unauthorized):
        await Session(a.dial, b.dial).open(within_s=20)


@virtual
async def test_closing_ends_all_links_and_dials_no_more() -> None:
    a, b, c = Host(0), Host(1), Host(2)
    b.is_slow = True
    c.is_up.clear()
    async with opened(a, b, c) as session:
        calls = await started(session, *(f"x!{each}" for each in range(3)))
        await session.close()
        assert (a.closed, b.closed) == (1, 1)
        for call in calls:
            with pytest.raises(ConnectionLost, match="closed"):
                await call
        c.is_up.set()
        await pass_time(10.0)
        assert (a.opened, b.opened, c.opened) == (1, 1, 0)
        assert (a.taken(), b.taken()) == ([1, 3], [2]), "nothing was sent to the one closed last"


@virtual
async def test_a_single_line_has_nothing_to_choose() -> None:
    a = Host(0, 1)
    async with opened(a) as session:
        assert session._lines.routes == []
        [call] = await started(session, "x!3")
        assert a.taken() == [1]
        a.answer(1)
        await call


@virtual
async def test_starts_that_a_host_has_no_room_for_outlast_their_line() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        calls = await started(session, *["x!0"] * 20)
        for seq in a.taken():
            a.refuse(seq, "Overloaded")
        b.on_batch = lambda messages: b.answer(*(each.seq for each in messages))
        await pass_time(SOON_S)
        a.trouble = ConnectionLost("away")
        a.link.close()
        await pass_time(10.0)
        assert await asyncio.gather(*calls) == [STARTED] * 20
        assert sorted(b.taken()) == list(range(1, 21)), "none twice"


@virtual
async def test_that_there_is_no_host_is_said_once_and_that_there_is_one_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def said() -> list[str]:
        return [text for name, _, text in caplog.record_tuples if name == "shardrt.client.lines"]

    a, b = Host(0, 1), Host(2, 3)
    async with opened(a, b) as session:
        await pass_time(1.0)
        a.trouble = ConnectionLost("a is away")
        a.link.close()
        await pass_time(10.0)
        assert said() == [], "there is another host"
        b.trouble = ConnectionLost("b is away")
        b.link.close()
        await pass_time(60.0)
        (text,) = said()
        assert text.startswith("no host can be reached, trying again: ")
        a.trouble = None
        await pass_time(60.0)
        assert session.is_connected
        assert said()[1:] == ["a host can be reached again"]
