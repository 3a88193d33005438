"""Sessions: nothing is asked twice, nothing is forgotten, whatever happens to the link."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from shardrt.client.dialing import silence_ticks
from shardrt.client.session import Session
from shardrt.client.wire import TypedAsk, TypedCall
from shardrt.core import requests as r
from shardrt.errors import (
    ConnectionLost,
    InstanceExists,
    Overloaded,
    PartitionUnavailable,
    Unauthorized,
)
from shardrt.links.admin import Cluster
from shardrt.links.base import Link, LinkHandler
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Answer, Welcome
from shardrt.links.websocket import AWAITED_TICKS, IDLE_TICKS, RESULT_TICKS
from tests.links.ends import End
from tests.loops import in_loop
from tests.waiting import eventually

WELCOME = Welcome(1, "0", 4, "host", 1000)
STARTED = Raw(b'["a","e"]')


class Host(End):
    """The other end of a session's links; `trouble` makes dialling fail."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: list[Exception] = []
        self.dials = 0

    async def dial(self, session_id: str, session: LinkHandler) -> tuple[Link, Welcome]:
        self.dials += 1
        self.news.set()
        if self.trouble:
            raise self.trouble.pop(0)
        return connect_in_process(lambda _: session, self.accept), WELCOME

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]

    def answer(self, seq: int, result: Raw = STARTED) -> None:
        self.link.send(Answer(seq, result))

    def answer_all(self, messages: list[Any]) -> None:
        for message in messages:
            self.answer(message.seq)

    def refuse_all(self, messages: list[Any]) -> None:
        for message in messages:
            self.refuse(message.seq, "PartitionUnavailable", 0.001)

    async def until_received(self, count: int) -> None:
        await self.until(lambda: len(self.messages) == count)

    def refuse(self, seq: int, code: str, retry_after_s: float | None = None) -> None:
        self.link.send(Answer(seq, refusal=r.Refusal(code, "no", retry_after_s)))


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[Session, Host]]:
    host = Host()
    session = Session(host.dial, **options)
    await session.open()
    try:
        yield session, host
    finally:
        await session.close()


def start(fresh: bool = False) -> r.Start:
    return r.Start("hello", fresh=fresh)


@in_loop
async def test_calls_are_numbered_and_travel_together() -> None:
    async with opened() as (session, host):
        futures = [session.submit("a", start()) for _ in range(3)]
        await host.until(lambda: len(host.messages) == 3)
        assert host.batches == [3]
        assert host.messages == [TypedCall(seq, 1, "a", start()) for seq in (1, 2, 3)]
        for seq in (3, 1, 2):
            host.answer(seq)
        assert await asyncio.gather(*futures) == [STARTED] * 3


@in_loop
async def test_low_is_the_lowest_open_write() -> None:
    async with opened() as (session, host):
        wait = asyncio.ensure_future(session.wait("a"))
        await asyncio.sleep(0)
        futures = [session.submit("a", start()) for _ in range(3)]
        await host.until(lambda: len(host.messages) == 4)
        host.answer(2)
        host.answer(4)
        await futures[0]
        futures.append(session.submit("a", r.Export()))
        futures.append(session.submit("a", start()))
        await host.until(lambda: len(host.messages) == 6)
        # 1 waits and 5 reads; of the writes 2 and 4 are answered, 3 is open.
        assert [message.low for message in host.messages] == [2, 2, 2, 2, 3, 3]
        host.answer(3)
        await futures[1]
        futures.append(session.submit("a", start()))
        await host.until(lambda: len(host.messages) == 7)
        assert host.messages[-1].low == 6
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)


@in_loop
async def test_what_is_unanswered_is_sent_again_over_the_next_link() -> None:
    async with opened() as (session, host):
        answered = session.submit("a", start(fresh=True))
        lost = session.submit("b", start(fresh=True))
        asked = session.submit("", Cluster())
        await host.until(lambda: len(host.messages) == 3)
        host.answer(1)
        await answered
        host.link.close()
        await host.until(lambda: host.opened == 2)
        await host.until(lambda: len(host.messages) == 5)
        # With the same numbers, but it may have been applied: it is not fresh any more.
        assert host.messages[3:] == [TypedCall(2, 2, "b", start()), TypedAsk(3, Cluster())]
        host.answer(2)
        host.answer(3)
        assert await lost == await asked == STARTED


@in_loop
async def test_what_was_never_sent_stays_fresh() -> None:
    async with opened() as (session, host):
        host.trouble = [ConnectionLost("away")] * 3
        host.link.close()
        await host.until(lambda: host.closed == 1)
        await eventually(lambda: not session.is_connected)
        started = session.submit("a", start(fresh=True))
        await host.until(lambda: len(host.messages) == 1)
        assert host.messages == [TypedCall(1, 1, "a", start(fresh=True))]
        assert host.dials == 5
        host.answer(1)
        await started


@in_loop
async def test_calls_end_at_their_deadline_while_there_is_no_host() -> None:
    async with opened(call_timeout_s=0.01) as (session, host):
        host.trouble = [ConnectionLost("cannot reach it")] * 1000
        host.link.close()
        with pytest.raises(ConnectionLost, match=r"cannot reach it|link to the host broke"):
            await session.submit("a", start())


@in_loop
async def test_a_host_that_does_not_answer_is_told_apart() -> None:
    async with opened(call_timeout_s=0.01) as (session, _):
        with pytest.raises(ConnectionLost, match="did not answer in time"):
            await session.submit("a", start())


@in_loop
async def test_passing_refusals_are_tried_again_with_the_same_number() -> None:
    async with opened() as (session, host):
        future = session.submit("a", start(fresh=True))
        for sent in range(1, 4):
            await host.until_received(sent)
            code = "PartitionUnavailable" if sent % 2 else "Overloaded"
            host.refuse(1, code, 0.001)
        await host.until(lambda: len(host.messages) == 4)
        host.answer(1)
        assert await future == STARTED
        assert host.seqs == [1, 1, 1, 1]


@in_loop
async def test_the_last_refusal_is_told_at_the_deadline() -> None:
    async with opened(call_timeout_s=0.1) as (session, host):
        host.on_batch = host.refuse_all
        with pytest.raises(PartitionUnavailable, match="no"):
            await session.submit("a", start())


@in_loop
async def test_overload_is_told_at_once_if_wanted() -> None:
    async with opened(retry_overloaded=False) as (session, host):
        future = session.submit("a", start())
        host.refuse(1, "Overloaded", 2.5)
        with pytest.raises(Overloaded) as refused:
            await future
        assert refused.value.retry_after_s == 2.5


@in_loop
async def test_an_overloaded_host_gets_fewer_starts_at_a_time() -> None:
    async with opened() as (session, host):
        futures = [session.submit("a", start()) for _ in range(40)]
        await host.until_received(40)
        for seq in range(1, 41):
            host.refuse(seq, "Overloaded", 0.001)
        await host.until_received(40 + 20)
        reads = [session.submit("a", r.Get()) for _ in range(2)]  # which are not held back
        await host.until_received(62)
        assert host.seqs[40:] == [*range(1, 21), 41, 42]
        for seq in (1, 2, 41, 42):
            host.answer(seq, STARTED if seq < 41 else Raw(b"null"))
        await host.until_received(64)
        assert host.seqs[62:] == [21, 22]
        for seq in range(3, 41):
            host.answer(seq)
        await asyncio.gather(*futures, *reads)


@in_loop
async def test_what_is_held_back_outlasts_a_link() -> None:
    async with opened() as (session, host):
        futures = [session.submit("a", start()) for _ in range(40)]
        await host.until_received(40)
        for seq in range(1, 41):
            host.refuse(seq, "Overloaded")
        await eventually(lambda: session.is_overloaded)
        host.on_batch = host.answer_all
        host.link.close()
        assert await asyncio.gather(*futures) == [STARTED] * 40


@in_loop
async def test_starts_that_are_not_to_wait_fail_unsent_while_a_host_is_overloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(retry_overloaded=False) as (session, host):
        futures = [session.submit("a", start()) for _ in range(20)]
        await host.until_received(20)
        host.refuse(1, "Overloaded")
        with pytest.raises(Overloaded, match="no"):
            await futures[0]
        assert session.is_overloaded
        with pytest.raises(Overloaded, match="was not sent"):
            await session.submit("a", start())
        assert len(host.messages) == 20
        monkeypatch.setattr("shardrt.client.window.FORGET_S", 0.0)
        host.answer(2)
        await futures[1]
        await eventually(lambda: not session.is_overloaded)
        for seq in range(3, 21):
            host.answer(seq)
        await asyncio.gather(*futures[1:])


@in_loop
async def test_starts_in_partitions_without_an_owner_do_not_hold_up_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardrt.client.window.LIMIT_MAX", 10.0)
    async with opened() as (session, host):
        futures = [session.submit("a", start()) for _ in range(12)]
        await host.until_received(10)
        assert session.is_overloaded
        await host.until_received(12)  # after a while
        for seq in range(1, 13):
            host.answer(seq)
        await asyncio.gather(*futures)


@in_loop
async def test_who_waits_too_long_for_an_overloaded_host_is_told() -> None:
    async with opened(call_timeout_s=0.3) as (session, host):
        futures = [session.submit("a", start()) for _ in range(20)]
        await host.until_received(20)
        for seq in range(1, 21):
            host.refuse(seq, "Overloaded")
        await eventually(lambda: session.is_overloaded or host.seqs[20:])
        late = [session.submit("a", start()) for _ in range(12)]
        errors = await asyncio.gather(*futures, *late, return_exceptions=True)
        told = {type(each) for each in errors}
        assert Overloaded in told
        assert told <= {Overloaded, ConnectionLost}


@in_loop
async def test_other_refusals_are_told_at_once() -> None:
    async with opened() as (session, host):
        future = session.submit("a", start())
        host.refuse(1, "InstanceExists")
        with pytest.raises(InstanceExists):
            await future


@in_loop
async def test_all_who_wait_for_one_instance_share_a_request() -> None:
    snapshot = Raw(
        b'{"instance_id":"a","execution_id":"e","name":"n","status":"Completed",'
        b'"created_at":1,"updated_at":1,"partition":0}'
    )
    async with opened(call_timeout_s=0.01) as (session, host):
        waits = [asyncio.ensure_future(session.wait("a")) for _ in range(3)]
        await host.until(lambda: len(host.messages) == 1)
        waits[0].cancel()
        await asyncio.wait(waits[:1])
        waits.append(asyncio.ensure_future(session.wait("a")))
        host.link.close()
        await host.until(lambda: len(host.messages) == 2)
        assert host.messages == [TypedCall(1, 2, "a", r.Wait())] * 2
        host.answer(1, snapshot)
        ended = await asyncio.gather(*waits[1:])
        assert [each.status for each in ended] == ["Completed"] * 3
        waits.append(asyncio.ensure_future(session.wait("a")))
        await host.until(lambda: len(host.messages) == 3)
        host.answer(2, snapshot)
        await waits[-1]


@in_loop
async def test_nobody_needs_to_hear_of_a_wait_that_nobody_waits_for() -> None:
    async with opened() as (session, host):
        wait = asyncio.ensure_future(session.wait("a"))
        await host.until(lambda: len(host.messages) == 1)
        wait.cancel()
        await asyncio.wait([wait])
        host.refuse(1, "InstanceNotFound")
        host.answer(2)
        await session.submit("b", r.Get())


@in_loop
async def test_a_wait_that_is_given_up_leaves_nothing() -> None:
    """Who polls with a time limit gives up often while the request stays under way."""
    async with opened() as (session, host):
        shared: Any = session._submit_wait("a").future
        waits = [asyncio.ensure_future(session.wait("a")) for _ in range(3)]
        await host.until(lambda: len(shared._waiters) == 3)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        assert shared._waiters == []


@in_loop
async def test_answers_to_nothing_are_ignored() -> None:
    async with opened() as (session, host):
        future = session.submit("a", start())
        host.answer(7)
        host.answer(1)
        host.answer(1)
        assert await future == STARTED


@in_loop
async def test_closing_ends_what_is_under_way() -> None:
    async with opened() as (session, host):
        future = session.submit("a", start())
        waiting = asyncio.ensure_future(session.wait("a"))
        await host.until(lambda: len(host.messages) == 2)
        await session.close()
        for each in (future, waiting):
            with pytest.raises(ConnectionLost, match="closed"):
                await each
        with pytest.raises(ConnectionLost, match="closed"):
            await session.submit("a", start())
        with pytest.raises(ConnectionLost, match="closed"):
            await session.wait("a")


@in_loop
async def test_who_does_not_wait_for_the_end_of_closing_has_closed_nevertheless() -> None:
    for turns in range(1, 5):
        async with opened() as (session, host):
            future = session.submit("a", start())
            closing = asyncio.ensure_future(session.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await host.until(lambda host=host: host.closed == 1)  # type: ignore[misc]
            with pytest.raises(ConnectionLost, match="closed"):
                await future


@in_loop
async def test_opening_fails_at_once_or_after_a_while() -> None:
    host = Host()
    host.trouble = [ConnectionLost("away")]
    with pytest.raises(ConnectionLost, match="away"):
        await Session(host.dial).open()
    host.trouble = [ConnectionLost("away")] * 3
    session = Session(host.dial)
    await session.open(within_s=20)
    assert host.dials == 5
    await session.close()
    host.trouble = [Unauthorized("no")]
    with pytest.raises(Unauthorized):
        await Session(host.dial).open(within_s=20)


@in_loop
async def test_a_token_that_is_taken_no_more_ends_what_is_under_way() -> None:
    async with opened() as (session, host):
        future = session.submit("a", start())
        await host.until(lambda: len(host.messages) == 1)
        host.trouble = [Unauthorized("no")]
        host.link.close()
        with pytest.raises(Unauthorized):
            await future
        await host.until(lambda: host.opened == 2)


@in_loop
async def test_a_bug_in_dialling_does_not_end_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened() as (session, host):
        host.trouble = [RuntimeError("a bug")]
        host.link.close()
        await host.until(lambda: host.opened == 2)
        future = session.submit("a", start())
        host.answer(1)
        await future
    assert "cannot connect" in caplog.text


@in_loop
async def test_a_host_that_owes_only_the_end_of_an_instance_may_be_silent_for_longer() -> None:
    async with opened() as (session, host):
        line = session._lines.main
        assert line is not None
        assert silence_ticks(line) == IDLE_TICKS
        waiting = asyncio.ensure_future(session.wait("a"))
        await host.until_received(1)
        assert silence_ticks(line) == RESULT_TICKS
        call = session.submit("a", r.Get())
        assert silence_ticks(line) == AWAITED_TICKS
        host.answer(2)
        await call
        assert silence_ticks(line) == RESULT_TICKS
        waiting.cancel()
