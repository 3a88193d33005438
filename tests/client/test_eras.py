"""Lines to hosts of which some know the hub in an older era, in virtual time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shardrt.client.wire import TypedCall
from shardrt.core import requests as r
from shardrt.errors import ConnectionLost
from shardrt.links.frames import Codec
from shardrt.links.messages import Serving, ToClient
from shardrt.testing.virtual import pass_time
from tests.client.several_hosts import SOON_S, STARTED, Host, opened, start, started, virtual

ALL = (0, 1, 2, 3)


async def split(a: Host, b: Host) -> None:
    """Have one host claim everything in an era that the other does not know."""
    b.era = 2
    b.say(*ALL)
    await pass_time(SOON_S)


@virtual
async def test_who_is_behind_is_asked_for_nothing_whatever_it_claims() -> None:
    a, b = Host(*ALL), Host()
    async with opened(a, b) as session:
        b.era = 2
        b.say(0)
        await pass_time(1.0)
        calls = await started(session, "x!0", "x!1")
        assert (a.taken(), b.taken()) == ([], [1, 2]), "also what nobody serves in that era so far"
        await pass_time(5.0)
        assert a.closed == a.opened > 2, "it may follow at any time"
        calls += await started(session, "y!0", "y!1")
        assert (a.taken(), b.taken()) == ([], [3, 4])
        b.answer(1, 2, 3, 4)
        await asyncio.gather(*calls)


@virtual
async def test_all_that_is_under_way_goes_to_the_newer_era_and_is_answered_there() -> None:
    a, b = Host(*ALL), Host()
    async with opened(a, b) as session:
        calls = [session.submit("x!0", start(fresh=True)), session.submit("x!1", r.Cancel())]
        waiting = asyncio.ensure_future(session.wait("w!2"))
        await pass_time(SOON_S)
        assert a.taken() == [1, 2, 3]
        await split(a, b)
        assert b.messages == [
            TypedCall(1, 1, "x!0", start()),
            TypedCall(2, 1, "x!1", r.Cancel()),
            TypedCall(3, 1, "w!2", r.Wait()),
        ]
        b.answer(1, 2)
        assert await asyncio.gather(*calls) == [STARTED] * 2
        waiting.cancel()


@virtual
async def test_what_only_an_older_era_could_take_waits_for_one_that_is_not() -> None:
    a, b = Host(*ALL), Host()
    async with opened(a, b, call_timeout_s=10.0) as session:
        await split(a, b)
        b.trouble = ConnectionLost("away")
        b.link.close()
        [lost] = await started(session, "x!0")
        await pass_time(8.0)
        [kept] = await started(session, "y!0")
        await pass_time(5.0)
        assert not session.is_connected
        with pytest.raises(ConnectionLost, match=r"behind: it knows era 0 .* another one era 2"):
            await lost
        a.era = 2
        await pass_time(2.0)
        assert a.taken() == [2], "it has followed"
        a.answer(2)
        await kept


@virtual
async def test_eras_are_remembered_while_all_links_are_down() -> None:
    a, b = Host(*ALL), Host()
    async with opened(a, b) as session:
        await split(a, b)
        for host in (a, b):
            host.trouble = ConnectionLost("away")
        b.link.close()
        await pass_time(1.0)
        assert not session.is_connected
        a.trouble = None
        [call] = await started(session, "x!0")
        await pass_time(5.0)
        b.trouble = None
        await pass_time(2.0)
        assert (a.taken(), b.taken()) == ([], [1])
        b.answer(1)
        await call


@virtual
async def test_a_link_that_is_left_takes_nothing_and_is_not_missed_when_it_ends_late() -> None:
    a, b, c = Host(0, 1), Host(), Host(2)
    a.is_slow = c.is_slow = True
    async with opened(a, c, b) as session:
        calls = await started(session, "x!0", "x!3", "x!2")
        b.era = 2
        b.say(0)
        await pass_time(SOON_S)
        calls += await started(session, "y!1", "y!2")
        assert (a.taken(), b.taken(), c.taken()) == ([1, 2], [1, 2, 3, 4, 5], [3])
        assert (a.closed, c.closed) == (0, 0), "their links have not ended"
        b.answer(1, 2, 3, 4, 5)
        await asyncio.gather(*calls)
        a.era = c.era = 2
        await pass_time(0.9)
        assert (a.opened, c.opened) == (1, 1)
        await pass_time(1.0)
        assert (a.opened, a.closed, c.opened, c.closed) == (2, 1, 2, 1)
        calls = await started(session, "z!1", "z!2")
        assert (a.taken(), b.taken(), c.taken()) == ([6], [], [7])
        a.answer(6)
        c.answer(7)
        await asyncio.gather(*calls)


@virtual
async def test_a_host_that_falls_back_into_an_older_era_is_left() -> None:
    a, b = Host(*ALL), Host()
    a.era = b.era = 2
    async with opened(a, b) as session:
        a.era = 0
        a.say(*ALL)
        await pass_time(SOON_S)
        [call] = await started(session, "x!0")
        assert (a.taken(), b.taken()) == ([], [1])
        b.era = 0
        b.say(*ALL)
        await pass_time(SOON_S)
        assert not session.is_connected
        b.era = 2
        await pass_time(2.0)
        assert (a.taken(), b.taken()) == ([], [1])
        b.answer(1)
        await call


@virtual
async def test_within_an_era_whoever_claims_last_is_asked() -> None:
    a, b = Host(*ALL), Host()
    a.era = b.era = 2
    async with opened(a, b) as session:
        b.say(0)
        await pass_time(SOON_S)
        calls = await started(session, "x!0", "x!1")
        assert (a.taken(), b.taken()) == ([2], [1])
        a.say(*ALL)
        await pass_time(SOON_S)
        calls += await started(session, "y!0")
        assert a.taken() == [1, 3]
        a.answer(1, 2, 3)
        await asyncio.gather(*calls)
        assert (a.opened, b.opened) == (1, 1)


@virtual
async def test_hosts_too_old_to_tell_their_era_are_asked_as_ever() -> None:
    a, b = Host(0, 1), Host(2, 3)
    a.era, b.era = None, 2
    async with opened(a, b) as session:
        calls = await started(session, "x!1", "x!2")
        assert (a.taken(), b.taken()) == ([1], [2])
        a.say(0, 1, 2)
        await pass_time(SOON_S)
        calls += await started(session, "y!2")
        b.trouble = ConnectionLost("away")
        b.link.close()
        calls += await started(session, "y!3")
        assert a.taken() == [2, 3, 4]
        a.answer(1, 2, 3, 4)
        await asyncio.gather(*calls)


@virtual
async def test_a_release_that_does_not_tell_may_take_the_place_of_one_that_was_behind() -> None:
    a, b = Host(*ALL), Host()
    async with opened(a, b) as session:
        await split(a, b)
        a.is_old = True
        await pass_time(2.0)
        b.trouble = ConnectionLost("away")
        b.link.close()
        [call] = await started(session, "x!0")
        assert a.taken() == [1]
        a.answer(1)
        await call


@virtual
async def test_who_is_behind_is_not_dialled_again_before_the_link_has_ended() -> None:
    a, b = Host(*ALL), Host()
    a.is_slow = True
    async with opened(a, b):
        await split(a, b)
        for _ in range(50):
            await pass_time(0.1)
            assert a.opened - a.closed <= 1
        assert a.opened > 2


@virtual
async def test_eras_of_another_hub_do_not_count() -> None:
    a, b = Host(*ALL), Host(*range(8), partitions=8)
    b.era = 2
    async with opened(a, b) as session:
        await pass_time(5.0)
        a.say(*ALL)
        [call] = await started(session, "x!1")
        assert (a.opened, a.taken()) == (1, [1])
        a.answer(1)
        await call


@virtual
async def test_who_has_heard_of_one_era_only_believes_it() -> None:
    """As a client does that is new; it is a limit, and documented."""
    a, b = Host(*ALL), Host(*ALL)
    b.era, b.trouble = 2, ConnectionLost("not reached so far")
    async with opened(a, b) as session:
        [call] = await started(session, "x!0")
        assert a.taken() == [1]
        b.trouble = None
        await pass_time(1.0)
        assert (a.closed, b.taken()) == (a.opened, [1]), "until it hears of another"
        b.answer(1)
        await call


class OldServing(msgspec.Struct, frozen=True, array_like=True, tag="serving"):
    """`Serving` before it told of eras."""

    partitions: tuple[int, ...]


def test_old_clients_take_what_new_hosts_say_and_new_clients_what_old_ones_say() -> None:
    for era in (0, 2):
        new = Codec(ToClient).encode([Serving((0, 3), era)])[0]
        assert Codec(OldServing).decode(new) == [OldServing((0, 3))]
        assert Codec(ToClient).decode(new) == [Serving((0, 3), era)]
    old = Codec(ToClient).encode([OldServing((0, 3))])[0]
    assert Codec(ToClient).decode(old) == [Serving((0, 3), era=None)]
