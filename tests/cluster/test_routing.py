"""The router, in virtual time: where calls go while partitions move, and when it gives up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.cluster import looks
from shardrt.cluster.calls import WAIT, PendingCall
from shardrt.cluster.routing import HINT_S, RETRY_S_MAX, SWEEP_S, Router
from shardrt.core import requests as r
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Accepted, Answer, Ask, Forget, ForwardRaw, Look, NotOwner
from shardrt.testing.virtual import pass_time, run_virtual
from tests.links.ends import End

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from shardrt.links.base import Accept, Link

PATIENCE_S = 7.0
HERE, THERE, ELSEWHERE = "/socket", "http://there#b/1", "http://elsewhere#c/1"
GONE = "http://gone#d/1"
START = Raw(msgspec.json.encode(r.Start("hello", fresh=True)))
MOVING = r.Refusal("PartitionUnavailable", "it is moving", 0.1)


class Owner:
    """A shard or host at the other end of links; answers what a test says."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.received: list[Any] = []
        self.answer: Callable[[Any], Any] = lambda call: Answer(call.seq, Raw(b"1"))
        """None: no answer."""

    def accept(self, link: Link) -> Owner:
        self.links.append(link)
        return self

    def on_messages(self, messages: list[Any]) -> None:
        self.received += messages
        for message in messages:
            if isinstance(message, ForwardRaw | Ask) and (said := self.answer(message)):
                self.links[-1].send(said)

    def on_closed(self) -> None:
        self.links.pop()

    @property
    def calls(self) -> list[ForwardRaw]:
        return [each for each in self.received if isinstance(each, ForwardRaw)]


class Caller:
    def __init__(self) -> None:
        self.open: set[int] = set()
        self.end = End()
        self.link = connect_in_process(End().accept, self.end.accept)
        self.calls = 0

    @property
    def answers(self) -> list[Any]:
        return self.end.messages

    def refusal(self) -> r.Refusal:
        (answer,) = self.answers
        assert isinstance(answer.refusal, r.Refusal)
        return answer.refusal


class Rig:
    """A router of four partitions among a shard here and two other hosts."""

    def __init__(self, **options: Any) -> None:
        self.owners = {HERE: Owner(), THERE: Owner(), ELSEWHERE: Owner()}
        self.kept: list[str] = []
        self.looks: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.router = Router(
            4,
            keep=self.keep,
            stranded_s_max=PATIENCE_S,
            look=lambda: self.looks.append(self.loop.time()),
            **options,
        )
        self.caller = Caller()

    @property
    def here(self) -> Owner:
        return self.owners[HERE]

    @property
    def there(self) -> Owner:
        return self.owners[THERE]

    async def keep(self, address: str, accept: Accept) -> None:
        self.kept.append(address)
        if address == GONE:
            await asyncio.Event().wait()
        link = connect_in_process(accept, self.owners[address].accept)
        try:
            await asyncio.Event().wait()
        finally:
            link.close()

    def send(
        self,
        partition: int = 0,
        request: Raw = START,
        *,
        caller: Caller | None = None,
        wants_end: bool = False,
    ) -> None:
        """Send a call as a client's, or as a peer's if there is a `caller`."""
        by = caller or self.caller
        by.calls += 1
        seq = self.router.number()
        origin = r.Origin("c", by.calls, 1)
        message = ForwardRaw(seq, partition, origin, "a", request, wants_end)
        is_once = caller is not None
        call = PendingCall(by, by.calls, message, is_wait=request is WAIT, is_once=is_once)
        if is_once:
            self.router.send_here(seq, call)
        else:
            self.router.send(seq, call)


def routed(test: Callable[[Rig], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Give a test a router that runs, with all partitions here."""

    def run() -> None:
        async def main() -> None:
            await pass_time(1)
            rig = Rig()
            running = asyncio.ensure_future(rig.router.run())
            rig.router.set_routes([HERE] * 4)
            await pass_time(0.01)
            await test(rig)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        run_virtual(main())

    return run


@routed
async def test_a_call_that_is_refused_as_moving_is_sent_again(rig: Rig) -> None:
    refusals = 3

    def answer(call: ForwardRaw) -> Answer:
        if len(rig.here.calls) <= refusals:
            return Answer(call.seq, refusal=MOVING)
        return Answer(call.seq, Raw(b'"done"'))

    rig.here.answer = answer
    rig.send()
    await pass_time(0.2)
    assert rig.caller.answers == [Answer(1, Raw(b'"done"'))]
    first, *others = rig.here.calls
    assert {each.origin for each in others} == {first.origin}
    assert len({each.seq for each in rig.here.calls}) == refusals + 1
    # Only the first try may claim to be the first.
    fresh = [msgspec.json.decode(each.request, type=r.Start).fresh for each in rig.here.calls]
    assert fresh == [True, False, False, False]
    assert not rig.caller.open
    assert not rig.router.pending


@routed
async def test_a_new_route_ends_the_pause(rig: Rig) -> None:
    rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
    rig.send()
    rig.send(request=WAIT)
    await pass_time(2)
    before = rig.loop.time()
    rig.router.set_routes([THERE] * 4)
    await rig.caller.end.until(lambda: len(rig.caller.answers) == 2)
    assert rig.loop.time() - before < RETRY_S_MAX / 4
    assert [each.request for each in rig.there.calls][1] == WAIT


@routed
async def test_what_comes_while_a_partition_pauses_queues_up(rig: Rig) -> None:
    rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
    rig.send()
    await pass_time(1)
    tries = len(rig.here.calls)
    for _ in range(5):
        rig.send()
    rig.send(partition=1)
    await pass_time(0.001)
    assert [each.partition for each in rig.here.calls[tries:]] == [1]
    rig.here.answer = lambda call: Answer(call.seq, Raw(b"1"))
    rig.here.received.clear()
    await pass_time(RETRY_S_MAX)
    answered = [each.origin.seq for each in rig.here.calls if each.partition == 0]
    assert answered == [1, 2, 3, 4, 5, 6]


@routed
async def test_refusals_are_not_a_storm_of_queries_or_of_calls(rig: Rig) -> None:
    rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
    for _ in range(200):
        rig.send()
    await pass_time(5)
    assert len(rig.here.calls) <= 200 * 15
    assert 5 <= len(rig.looks) <= 10
    pauses = [later - sooner for sooner, later in zip(rig.looks, rig.looks[1:], strict=False)]
    assert min(pauses) >= looks.LOOK_S_MIN


@routed
async def test_patience_has_an_end_and_says_why(rig: Rig) -> None:
    rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
    rig.send(partition=3)
    await pass_time(PATIENCE_S - 0.1)
    assert rig.caller.answers == []
    await pass_time(1)
    refusal = rig.caller.refusal()
    assert refusal == r.Refusal(
        "PartitionUnavailable", "partition 3: no owner for 7 s: it is moving", 0.1
    )
    assert not rig.router.pending


@routed
async def test_patience_begins_anew_for_a_wait_that_was_accepted(rig: Rig) -> None:
    rig.here.answer = lambda _: None
    rig.send(request=WAIT)
    for owner, following in [(rig.here, THERE), (rig.there, HERE)] * 3:
        await pass_time(PATIENCE_S - 1)
        owner.answer = lambda call: Answer(call.seq, refusal=MOVING)
        owner.links[-1].send(Answer(owner.calls[-1].seq, refusal=MOVING))
        await pass_time(PATIENCE_S - 1)
        rig.owners[following].answer = lambda _: None
        rig.router.set_routes([following] * 4)
        await pass_time(0.1)
    assert rig.caller.answers == []


@routed
async def test_a_hint_is_followed_at_once_one_time(rig: Rig) -> None:
    rig.router.set_routes([THERE] * 4)
    rig.there.answer = lambda call: NotOwner(call.seq, ELSEWHERE)
    rig.owners[ELSEWHERE].answer = lambda call: NotOwner(call.seq, THERE)
    rig.send()
    await pass_time(3)
    # Both believe in each other: pauses grow all the same.
    assert 1 < len(rig.there.calls) < 7
    assert 1 < len(rig.owners[ELSEWHERE].calls) < 7
    rig.owners[ELSEWHERE].answer = lambda call: Answer(call.seq, Raw(b"1"))
    await pass_time(2 * RETRY_S_MAX)
    assert rig.caller.answers == [Answer(1, Raw(b"1"))]


@routed
async def test_a_hint_that_leads_nowhere_is_forgotten(rig: Rig) -> None:
    rig.router.set_routes([THERE] * 4)
    rig.there.answer = lambda call: NotOwner(call.seq, ELSEWHERE)
    rig.owners[ELSEWHERE].answer = lambda call: NotOwner(call.seq, None)
    rig.send()
    await pass_time(0.1)
    assert rig.owners[ELSEWHERE].calls
    # It serves by now, as we had been told; nobody will tell us again.
    rig.there.answer = lambda call: Answer(call.seq, Raw(b"1"))
    await pass_time(RETRY_S_MAX)
    assert rig.caller.answers == [Answer(1, Raw(b"1"))]


@routed
async def test_a_hint_to_who_cannot_be_reached_is_forgotten(rig: Rig) -> None:
    rig.router.set_routes([THERE] * 4)
    rig.there.answer = lambda call: NotOwner(call.seq, GONE)
    rig.send()
    await pass_time(0.1)
    assert rig.kept[-1] == GONE
    rig.there.answer = lambda call: Answer(call.seq, Raw(b"1"))
    await pass_time(HINT_S + SWEEP_S)
    assert rig.caller.answers == [Answer(1, Raw(b"1"))]


@routed
async def test_peers_are_dialled_when_there_is_something_for_them(rig: Rig) -> None:
    rig.router.set_routes([HERE, THERE, ELSEWHERE, HERE])
    await pass_time(1)
    assert rig.kept == [HERE]
    assert rig.router.partitions_served == 4
    rig.send(partition=1)
    await pass_time(0.1)
    assert rig.kept == [HERE, THERE]
    assert len(rig.caller.answers) == 1
    rig.router.set_routes([HERE] * 4)
    await pass_time(1)
    assert rig.there.links == []


@routed
async def test_calls_survive_the_loss_of_a_peer(rig: Rig) -> None:
    rig.router.set_routes([THERE] * 4)
    rig.there.answer = lambda _: None
    rig.send()
    rig.send(request=WAIT)
    await pass_time(1)
    assert len(rig.there.calls) == 2
    looked = len(rig.looks)
    rig.there.links[-1].close()
    await pass_time(0.1)
    assert len(rig.looks) > looked
    rig.router.set_routes([HERE] * 4)
    await pass_time(0.1)
    assert {each.seq for each in rig.caller.answers} == {1, 2}


@routed
async def test_without_patience_a_call_without_an_owner_is_refused(rig: Rig) -> None:
    rig.router.is_patient = False
    rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
    rig.send()
    await pass_time(0.01)
    assert rig.caller.refusal().message == "partition 0: this host is shutting down"


@routed
async def test_what_a_peer_brings_is_tried_once_and_here_only(rig: Rig) -> None:
    peer = Caller()
    rig.router.set_routes([HERE, THERE, None, HERE])
    rig.send(partition=1)  # so that there is a link
    await pass_time(0.1)
    rig.there.received.clear()
    for partition in range(3):
        rig.send(partition, caller=peer)
    await pass_time(0.01)
    assert peer.answers == [NotOwner(2, THERE), NotOwner(3), Answer(1, Raw(b"1"))]
    assert rig.there.received == []
    rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
    rig.send(caller=peer)
    await pass_time(0.01)
    assert peer.answers[3:] == [Answer(4, refusal=MOVING)]
    rig.here.answer = lambda _: None
    rig.send(caller=peer)
    rig.send(partition=3, caller=peer)
    await pass_time(0.01)
    rig.router.set_routes([THERE, THERE, None, HERE])
    await pass_time(0.01)
    assert peer.answers[4:] == [NotOwner(5, THERE)]
    rig.here.links[-1].close()
    await pass_time(0.01)
    assert peer.answers[5:] == [NotOwner(6)]
    assert not rig.router.pending
    assert not peer.open


@routed
async def test_owners_forget_what_nobody_waits_for(rig: Rig) -> None:
    rig.router.set_routes([HERE, THERE, HERE, HERE])
    rig.here.answer = rig.there.answer = lambda _: None
    for partition in (0, 1):
        rig.send(partition, WAIT)
        rig.send(partition)
    await pass_time(0.1)
    rig.router.forget(rig.caller.open)
    await pass_time(0.01)
    for owner in (rig.here, rig.there):
        waited = next(each.seq for each in owner.calls if each.request == WAIT)
        assert owner.received[-1] == Forget((waited,))
    assert not rig.router.pending


def take(call: ForwardRaw) -> Accepted | None:
    """Say that a start is durable, and nothing of a wait."""
    return None if call.request == WAIT else Accepted((call.seq,))


@routed
async def test_what_is_taken_is_a_wait_wherever_its_partition_goes(rig: Rig) -> None:
    rig.here.answer = rig.there.answer = take
    rig.send(wants_end=True)
    await pass_time(0.1)
    assert rig.caller.answers == [Accepted((1,))]
    assert (rig.router.calls_under_way, len(rig.caller.open)) == (0, 1)
    rig.router.set_routes([THERE] * 4)
    await pass_time(0.1)
    rig.there.links[-1].close()
    await pass_time(0.1)
    rig.router.set_routes([HERE] * 4)
    await pass_time(0.1)
    rig.here.links[-1].send(Answer(rig.here.calls[-1].seq, refusal=MOVING))
    await pass_time(0.1)
    first, *others = [*rig.here.calls[:1], *rig.there.calls, *rig.here.calls[1:]]
    assert (first.request, first.wants_end) == (START, True)
    assert len(others) == 3
    assert {(each.origin, bytes(each.request), each.wants_end) for each in others} == {
        (first.origin, bytes(WAIT), False)
    }
    rig.here.links[-1].send(Answer(rig.here.calls[-1].seq, Raw(b'"end"')))
    await pass_time(0.01)
    assert rig.caller.answers[1:] == [Answer(1, Raw(b'"end"'))]
    assert not rig.router.pending
    assert not rig.caller.open


@routed
async def test_what_is_not_taken_is_started_again_wherever_its_partition_goes(rig: Rig) -> None:
    rig.here.answer = rig.there.answer = lambda _: None
    rig.send(wants_end=True)
    await pass_time(0.1)
    rig.router.set_routes([THERE, HERE, HERE, HERE])
    await pass_time(0.1)
    rig.here.links[-1].send(Accepted((rig.here.calls[0].seq,)))  # too late: it is not the owner
    await pass_time(0.1)
    rig.there.links[-1].send(Answer(rig.there.calls[-1].seq, refusal=MOVING))
    await pass_time(0.1)
    again = rig.there.calls
    assert len(again) == 2
    for each in again:
        assert msgspec.json.decode(each.request, type=r.Start) == r.Start("hello")
        assert (each.wants_end, each.origin) == (True, rig.here.calls[0].origin)
    assert rig.caller.answers == []
    assert len(rig.router.pending) == 1


@routed
async def test_what_a_peer_brings_may_be_taken_here(rig: Rig) -> None:
    peer = Caller()
    rig.here.answer = take
    for _ in range(2):
        rig.send(caller=peer, wants_end=True)
    await pass_time(0.1)
    assert peer.answers == [Accepted((1,)), Accepted((2,))]
    assert rig.router.calls_under_way == 0
    rig.router.forget(list(peer.open)[:1])
    await pass_time(0.01)
    assert rig.here.received[-1] == Forget((rig.here.calls[0].seq,))
    rig.here.links[-1].close()
    await pass_time(0.01)
    assert peer.answers[2:] == [NotOwner(2)]


@routed
async def test_patience_begins_anew_for_a_start_that_was_taken(rig: Rig) -> None:
    rig.here.answer = take
    rig.send(wants_end=True)
    for _ in range(3):
        await pass_time(2.0)
        rig.here.answer = lambda call: Answer(call.seq, refusal=MOVING)
        rig.here.links[-1].send(Answer(rig.here.calls[-1].seq, refusal=MOVING))
        await pass_time(PATIENCE_S - 1)
        rig.here.answer = lambda _: None
        await pass_time(RETRY_S_MAX)
    assert rig.caller.answers == [Accepted((1,))]


@routed
async def test_questions_go_to_a_shard_or_else_to_a_peer(rig: Rig) -> None:
    def ask() -> None:
        seq = rig.router.number()
        call = PendingCall(rig.caller, seq, Ask(seq, Raw(b'["x"]')), is_wait=False)
        rig.router.send(seq, call)

    ask()
    await pass_time(0.01)
    assert len(rig.here.received) == 1
    rig.router.set_routes([THERE] * 4)
    await pass_time(1)
    ask()
    await pass_time(0.1)
    assert [type(each) for each in rig.there.received] == [Ask]
    assert len(rig.caller.answers) == 2


@routed
async def test_a_nudge_needs_no_route(rig: Rig) -> None:
    rig.router.nudge([THERE])
    await pass_time(0.1)
    rig.router.nudge([THERE])
    await pass_time(0.1)
    assert rig.there.received == [Look(), Look()]
    await pass_time(10)
    assert rig.there.links == []
