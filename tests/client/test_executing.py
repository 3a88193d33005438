"""Sessions: a start that is to be answered by the end of its instance, in virtual time.

Until it is known to be durable it is a start like any other. From then on it is a wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardrt.client.dialing import silence_ticks
from shardrt.client.session import BUSY
from shardrt.client.window import LIMIT_MAX
from shardrt.client.wire import TypedCall
from shardrt.core import requests as r
from shardrt.errors import ConnectionLost, InstanceExists, InstanceNotFound, Overloaded
from shardrt.links.websocket import AWAITED_TICKS, RESULT_TICKS
from shardrt.testing.virtual import pass_time
from tests.client.several_hosts import SOON_S, STARTED, Host, opened, start, virtual

if TYPE_CHECKING:
    from shardrt.client.session import Session

LONG_S = 3600.0
"""Longer than any time limit."""
AGAIN_S = 2.0
"""By then a host was dialled again that has hung up, and a refused request was made again."""


async def executed(session: Session, *instance_ids: str) -> list[asyncio.Task[r.Snapshot]]:
    """Start instances whose ends are wanted, and wait until a host has heard it."""
    runs = [
        asyncio.ensure_future(session.execute(each, start(fresh=True))) for each in instance_ids
    ]
    await pass_time(SOON_S)
    return runs


def run(seq: int, low: int, instance_id: str = "a", *, fresh: bool = False) -> TypedCall:
    return TypedCall(seq, low, instance_id, start(fresh=fresh), wants_end=True)


def wait(seq: int, low: int, instance_id: str = "a") -> TypedCall:
    return TypedCall(seq, low, instance_id, r.Wait())


# -- how it is answered ----------------------------------------------------------------------------


@virtual
async def test_a_start_may_be_answered_by_the_end_of_its_instance() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        assert host.messages == [run(1, 1, fresh=True)]
        host.end(1)
        assert (await ended).status == "Completed"
        assert not session.is_waiting
        assert len(host.messages) == 1


@virtual
async def test_a_host_that_knows_starts_only_is_asked_for_the_end() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.answer(1)
        await pass_time(LONG_S)
        assert host.messages == [run(1, 1, fresh=True), wait(2, 3)]
        host.end(2)
        assert (await ended).status == "Completed"
        assert not session.is_waiting


@virtual
async def test_a_refused_start_raises_the_reason() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.refuse(1, "InstanceExists")
        with pytest.raises(InstanceExists):
            await ended
        assert not session.is_waiting


@virtual
async def test_a_start_that_is_not_taken_in_time_is_given_up() -> None:
    host = Host()
    async with opened(host, call_timeout_s=60.0) as session:
        [ended] = await executed(session, "a")
        await pass_time(61.0)
        with pytest.raises(ConnectionLost, match="did not answer in time"):
            await ended
        assert not session.is_waiting


# -- when it is taken ------------------------------------------------------------------------------


@virtual
async def test_what_is_taken_waits_for_as_long_as_it_takes() -> None:
    host = Host()
    async with opened(host, call_timeout_s=60.0) as session:
        [ended] = await executed(session, "a")
        line = session._lines.main
        assert line is not None
        assert (session.is_calling, silence_ticks(line)) == (True, AWAITED_TICKS)
        host.tell_accepted(1)
        await pass_time(LONG_S)
        assert (session.is_calling, session.is_waiting) == (False, True)
        assert silence_ticks(line) == RESULT_TICKS
        host.end(1)
        assert (await ended).status == "Completed"
        assert not session.is_waiting
        assert host.messages == [run(1, 1, fresh=True)]


@virtual
async def test_what_is_taken_does_not_keep_owners_from_forgetting() -> None:
    host = Host()
    async with opened(host) as session:
        ends = await executed(session, "a", "b", "c")
        host.tell_accepted(1, 2)
        await pass_time(SOON_S)
        ends += await executed(session, "d")
        host.tell_accepted(3, 4)
        await pass_time(SOON_S)
        ends += await executed(session, "e")
        assert [message.low for message in host.messages] == [1, 1, 1, 3, 5]
        host.end(1, 2, 3, 4, 5)
        await asyncio.gather(*ends)


@virtual
async def test_what_is_taken_makes_room_for_other_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardrt.client.window.LIMIT_MAX", 2.0)
    host = Host()
    async with opened(host) as session:
        ends = await executed(session, "a", "b", "c", "d")
        assert (host.taken(), session.is_overloaded) == ([1, 2], True)
        host.tell_accepted(2)
        await pass_time(SOON_S)
        assert host.taken() == [3]
        host.end(2)  # it has left the window already
        await pass_time(SOON_S)
        assert host.taken() == []
        host.tell_accepted(1, 3)
        await pass_time(SOON_S)
        assert (host.taken(), session.is_overloaded) == ([4], False)
        host.end(1, 3, 4)
        await asyncio.gather(*ends)


@virtual
async def test_a_host_that_takes_starts_gets_more_at_a_time() -> None:
    host = Host()
    async with opened(host) as session:
        ends = await executed(session, *(f"i{number}" for number in range(40)))
        host.refuse(1, "Overloaded")
        await pass_time(SOON_S)
        limit = session._window.limit
        assert limit < LIMIT_MAX
        host.tell_accepted(*range(2, 41))
        await pass_time(SOON_S)
        assert session._window.limit > limit + 1
        await pass_time(AGAIN_S)
        host.end(*range(1, 41))
        await asyncio.gather(*ends)


@virtual
async def test_only_a_start_whose_end_is_wanted_can_be_taken() -> None:
    host = Host()
    async with opened(host) as session:
        started = session.submit("a", start())
        waiting = asyncio.ensure_future(session.wait("b"))
        [answered, ended] = await executed(session, "c", "d")
        host.end(3)
        await answered
        host.tell_accepted(1, 2, 3, 77, 4)
        await pass_time(SOON_S)
        assert (list(session._calls), list(session._waits)) == ([1], [2, 4])
        host.messages.clear()
        host.link.close()
        await pass_time(AGAIN_S)
        assert host.messages == [TypedCall(1, 1, "a", start()), wait(2, 1, "b"), wait(4, 1, "d")]
        host.answer(1)
        host.end(2, 4)
        assert await started == STARTED
        assert [each.status for each in await asyncio.gather(waiting, ended)] == ["Completed"] * 2


@virtual
async def test_what_is_told_twice_is_learned_once() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.tell_accepted(1, 1)
        host.tell_accepted(1)
        await pass_time(SOON_S)
        assert list(session._waits) == [1]
        host.end(1, 1)
        assert (await ended).status == "Completed"
        assert not session.is_waiting


@virtual
async def test_it_may_be_gone_after_it_was_taken() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.tell_accepted(1)
        host.refuse(1, "InstanceNotFound")
        with pytest.raises(InstanceNotFound):
            await ended
        assert not session.is_waiting


@virtual
async def test_closing_ends_what_was_taken() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.tell_accepted(1)
        await pass_time(SOON_S)
        await session.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await ended


# -- who gives up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Host.tell_accepted, Host.end, Host.answer])
@virtual
async def test_nothing_is_kept_of_a_start_that_nobody_waits_for_once_it_is_durable(
    answer: object,
) -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        ended.cancel()
        await asyncio.wait([ended])
        assert session.is_calling, "it must be done, or not: later requests may count on it"
        answer(host, 1)  # type: ignore[operator]
        await pass_time(SOON_S)
        assert not session._calls
        assert not session._waits
        assert host.taken() == [1]


@virtual
async def test_what_was_taken_and_nobody_waits_for_is_not_asked_for_again() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.tell_accepted(1)
        await pass_time(SOON_S)
        ended.cancel()
        await asyncio.wait([ended])
        host.link.close()
        await pass_time(AGAIN_S)
        assert host.opened == 2
        assert host.taken() == [1]
        assert not session.is_waiting


# -- when links break ------------------------------------------------------------------------------


@virtual
async def test_until_it_is_taken_it_is_started_again_over_the_next_link() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.link.close()
        await pass_time(AGAIN_S)
        # The first may have been applied: it is not fresh any more.
        assert host.messages == [run(1, 1, fresh=True), run(1, 1)]
        host.end(1)
        assert (await ended).status == "Completed"


@virtual
async def test_once_it_is_taken_it_is_waited_for_over_the_next_link() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.tell_accepted(1)
        await pass_time(SOON_S)
        for _ in range(2):
            host.messages.clear()
            host.link.close()
            await pass_time(AGAIN_S)
            assert host.messages == [wait(1, 2)]
        host.end(1)
        assert (await ended).status == "Completed"


@virtual
async def test_a_passing_refusal_is_followed_by_what_it_is_by_then() -> None:
    host = Host()
    async with opened(host) as session:
        [ended] = await executed(session, "a")
        host.refuse(1, "PartitionUnavailable")
        await pass_time(AGAIN_S)
        host.tell_accepted(1)
        host.refuse(1, "PartitionUnavailable")
        await pass_time(AGAIN_S)
        assert host.messages == [run(1, 1, fresh=True), run(1, 1), wait(1, 2)]
        host.end(1)
        assert (await ended).status == "Completed"


# -- with several hosts ----------------------------------------------------------------------------


async def rerouted(a: Host, b: Host, session: Session) -> asyncio.Task[r.Snapshot]:
    """Start an instance by one line, and have it sent again by another."""
    [ended] = await executed(session, "x!0")
    b.say(0, 1, 2, 3)
    await pass_time(SOON_S)
    assert a.messages == [run(1, 1, "x!0", fresh=True)]
    assert b.messages == [run(1, 1, "x!0")]
    for host in (a, b):
        host.messages.clear()
    return ended


@virtual
async def test_what_is_taken_goes_by_no_other_line() -> None:
    a, b = Host(0, 1, 2, 3), Host()
    async with opened(a, b) as session:
        [ended] = await executed(session, "x!0")
        a.tell_accepted(1)
        await pass_time(SOON_S)
        b.say(0, 1, 2, 3)
        await pass_time(SOON_S)
        assert (a.taken(), b.taken()) == ([1], [])
        a.end(1)
        assert (await ended).status == "Completed"


@virtual
async def test_a_start_is_taken_by_whichever_line_says_so() -> None:
    a, b = Host(0, 1, 2, 3), Host()
    async with opened(a, b) as session:
        ended = await rerouted(a, b, session)
        a.tell_accepted(1)
        await pass_time(SOON_S)
        b.tell_accepted(1)
        await pass_time(SOON_S)
        b.link.close()
        await pass_time(SOON_S)
        assert a.messages == [wait(1, 2, "x!0")]
        a.end(1)
        assert (await ended).status == "Completed"


@virtual
async def test_a_host_that_knows_starts_only_may_answer_after_another_has_taken_it() -> None:
    a, b = Host(0, 1, 2, 3), Host()
    async with opened(a, b) as session:
        ended = await rerouted(a, b, session)
        b.tell_accepted(1)
        await pass_time(SOON_S)
        a.answer(1)
        await pass_time(SOON_S)
        assert b.messages == [wait(2, 3, "x!0")]
        b.end(2)
        assert (await ended).status == "Completed"
        assert not session.is_waiting


@virtual
async def test_what_one_host_has_no_room_for_may_be_taken_by_another() -> None:
    a, b = Host(0, 1, 2, 3), Host()
    async with opened(a, b) as session:
        ended = await rerouted(a, b, session)
        b.refuse(1, "Overloaded")
        await pass_time(SOON_S)
        a.tell_accepted(1)
        await pass_time(AGAIN_S)
        assert b.messages == [wait(1, 2, "x!0")]
        b.end(1)
        assert (await ended).status == "Completed"
        assert not session.is_overloaded


@virtual
async def test_an_overload_is_told_at_once_if_wanted() -> None:
    host = Host()
    async with opened(host, retry_overloaded=False) as session:
        [ended] = await executed(session, "a")
        host.refuse(1, "Overloaded")
        with pytest.raises(Overloaded):
            await ended


@virtual
async def test_waiting_is_never_too_much() -> None:
    host = Host()
    async with opened(host, retry_overloaded=False) as session:
        [ended] = await executed(session, "a")
        host.tell_accepted(1)
        await pass_time(SOON_S)
        host.refuse(1, "Overloaded")
        await pass_time(AGAIN_S)
        assert host.messages[1:] == [wait(1, 2)], "it has been started, and goes on"
        host.end(1)
        assert (await ended).status == "Completed"


@virtual
async def test_a_wait_is_made_again_however_often_it_was_refused() -> None:
    host = Host()
    async with opened(host) as session:
        waiting = asyncio.ensure_future(session.wait("a"))
        await pass_time(SOON_S)
        session._waits[1].attempts = 5000
        host.refuse(1, "PartitionUnavailable")
        await pass_time(AGAIN_S)
        assert host.messages == [wait(1, 2)] * 2
        host.end(1)
        assert (await waiting).status == "Completed"


@virtual
async def test_who_joins_what_is_there_shares_its_end() -> None:
    host = Host()
    async with opened(host) as session:
        again = r.Start("hello", on_conflict="return")
        ends = [asyncio.ensure_future(session.execute("a", again)) for _ in range(3)]
        await pass_time(SOON_S)
        assert host.messages == [TypedCall(seq, 1, "a", again) for seq in (1, 2, 3)]
        for seq in (1, 2, 3):
            host.answer(seq)
        await pass_time(SOON_S)
        assert host.messages[3:] == [wait(4, 5)]
        host.end(4)
        assert [(await each).status for each in ends] == ["Completed"] * 3


@virtual
async def test_a_link_is_told_that_much_is_under_way() -> None:
    host = Host()
    async with opened(host) as session:
        asked = []
        for number in range(BUSY):
            assert not session.is_busy, number
            asked.append(session.submit("a", r.Get()))
        assert session.is_busy
        await pass_time(SOON_S)
        host.answer(1)
        await asked[0]
        assert not session.is_busy
