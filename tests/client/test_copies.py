"""What is sent by more than one line, and what is not, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from shardrt.core import requests as r
from shardrt.errors import InstanceExists
from shardrt.testing.virtual import pass_time
from tests.client.several_hosts import SOON_S, STARTED, Host, opened, start, started, virtual


@virtual
async def test_each_copy_by_a_line_is_refused_by_itself() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        [call] = await started(session, "x!0")
        for host in (b, a, b):  # twice by a, and now by b for the second time
            host.say(0)
            await pass_time(SOON_S)
        assert (a.taken(), b.taken()) == ([1, 1], [1, 1])
        a.refuse(1)
        await pass_time(SOON_S)
        b.refuse(1)
        b.refuse(1)
        await pass_time(SOON_S)
        assert not call.done(), "the second copy by a may still do it"
        a.answer(1)
        assert await call == STARTED


@virtual
async def test_starts_beyond_the_window_stay_where_they_were_sent() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        calls = [session.submit("x!0", start()) for _ in range(1500)]
        await pass_time(1.1)
        calls += [session.submit("x!0", start()) for _ in range(1000)]
        await pass_time(SOON_S)
        for moved in ((), (0,), (0, 1)):
            b.say(*moved)
            await pass_time(SOON_S)
        for _ in range(30):  # every copy is refused, and nothing waits for one that was never sent
            for host in (a, b):
                for seq in host.taken():
                    host.refuse(seq)
            await pass_time(0.6)
        assert all(call.done() for call in calls)
        for call in calls:
            with pytest.raises(InstanceExists):
                await call


@virtual
async def test_what_may_have_nothing_to_do_is_not_repeated_elsewhere() -> None:
    a, b = Host(0), Host()
    async with opened(a, b) as session:
        vain: list[r.Request] = [
            r.Suspend(),
            r.Resume(),
            r.Cancel(),
            r.Purge(),
            r.Start("n", on_conflict="return"),
        ]
        calls = [session.submit("x!0", each) for each in vain]
        calls.append(session.submit("x!0", r.Terminate()))
        await pass_time(SOON_S)
        b.say(0)
        await pass_time(SOON_S)
        assert (a.taken(), b.taken()) == ([1, 2, 3, 4, 5, 6], [6])
        a.answer(*range(1, 7))
        await asyncio.gather(*calls)


@virtual
async def test_who_cannot_reach_what_it_said_it_serves_is_not_asked_for_it_again() -> None:
    a, b, c = Host(), Host(0), Host()
    async with opened(a, b, c) as session:
        c.say(0)
        await pass_time(SOON_S)
        [call] = await started(session, "x!0")
        assert c.taken() == [1]
        c.refuse(1, "PartitionUnavailable")
        await pass_time(1.0)
        assert b.taken() == [1], "it has said so, too"
        b.refuse(1, "PartitionUnavailable")
        await pass_time(2.0)
        assert (a.taken(), b.taken(), c.taken()) == ([1], [], []), "the main line"
        a.answer(1)
        assert await call == STARTED
