"""Middleware around activities and before starts, on a whole hub, with crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from shardrt import App, CallNext, ExecutionInfo, OrchestrationContext, RetryPolicy, SchedulingInfo
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin
from shardrt.errors import OrchestrationFailed, Overloaded, PayloadTooLarge, SchedulingVetoed
from shardrt.links.messages import Answer, Forward
from shardrt.orchestration.sealing import PREFIX
from shardrt.testing import Environment, run_virtual, simulate
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time

if TYPE_CHECKING:
    from shardrt.client import Client


class Reversed:
    """A payload codec: what is stored is never the text that is meant."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


async def _let_pass(info: SchedulingInfo, call_next: CallNext) -> None:
    await call_next()


def an_app(**options: Any) -> App:
    app = App(**options)

    @app.activity(retry=RetryPolicy(max_attempts=3, first_interval=1.0))
    async def double(n: int) -> int:
        return 2 * n

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, n: int) -> int:
        doubled = await ctx.call_activity("double", n)
        await asyncio.sleep(60)
        return int(doubled + await ctx.call_activity(double, n + 1))

    return app


def test_around_an_activity_it_runs_outside_in_and_never_for_a_replay():
    app = an_app(payload_codec=Reversed())
    log: list[str] = []

    def register(name: str) -> None:
        @app.execution_middleware
        async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
            log.append(f"{name} {info.kind} {info.name} of {info.instance_id}: {info.input}")
            result = await call_next()
            log.append(f"{name} {result}")
            return result + 100 if name == "inner" else result

    register("outer")
    register("inner")

    async def main() -> None:
        async with Environment(app) as env:
            handle = await env.client.start("flow", 1, instance_id="i")
            await env.settle()
            await env.crash()  # what is in memory is gone: the code is replayed
            assert await handle.result() == 102 + 104
            assert sum(member.shard.turns.replays for member in env.hub.members) > 0

    run_virtual(main())
    assert log == [
        f"{name} activity double of i: {n}" if result is None else f"{name} {result}"
        for n in (1, 2)
        for name, result in [
            ("outer", None),
            ("inner", None),
            ("inner", 2 * n),
            ("outer", 2 * n + 100),
        ]
    ]


def test_each_attempt_passes_it_and_its_errors_are_those_of_the_attempt():
    app = an_app()
    attempts = []

    @app.execution_middleware
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        attempts.append((info.input, info.attempt))
        if info.attempt < 3:
            raise ConnectionError("cut")
        return await call_next()

    async def main() -> None:
        async with Environment(app) as env:
            handle = await env.client.start("flow", 5)
            assert await handle.result() == 10 + 12

    run_virtual(main())
    assert attempts == [(5, 1), (5, 2), (5, 3), (6, 1), (6, 2), (6, 3)]


def test_it_may_answer_in_place_of_an_activity():
    app = an_app()
    ran: list[int] = []

    @app.execution_middleware
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        return 7

    async def main() -> None:
        async with Environment(app, stubs={"double": ran.append}) as env:
            assert await (await env.client.start("flow", 5)).result() == 14

    run_virtual(main())
    assert ran == []


def test_the_timeout_of_an_attempt_covers_it():
    app = App()

    @app.activity(timeout=10)
    async def quick() -> None: ...

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(quick)

    @app.execution_middleware
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        await pass_time(11)
        return await call_next()

    async def main() -> None:
        async with Environment(app) as env:
            with pytest.raises(OrchestrationFailed, match="TimeoutError"):
                await (await env.client.start(flow)).result()

    run_virtual(main())


# -- before starts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ValueError("no room for n < 0"), SchedulingVetoed("no room for n < 0")),
        (KeyError(), SchedulingVetoed("KeyError")),
        (PayloadTooLarge("for you"), PayloadTooLarge("for you")),
        (None, SchedulingVetoed("start flow: the middleware did not let it pass")),
    ],
)
def test_a_start_that_is_vetoed_fails_with_the_error_and_nothing_is_recorded(
    error: Exception | None, seen: Exception
):
    app = an_app(payload_codec=Reversed())

    @app.scheduling_middleware
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        assert (info.source, info.name, info.context) == ("start", "flow", None)
        assert info.tags == {"tenant": "t"}
        if info.input < 0:
            if error is not None:
                raise error
        else:
            await call_next()

    async def main() -> None:
        async with Environment(app) as env:
            start, tags = env.client.start, {"tenant": "t"}
            appends = env.hub.calls.names.count("append")
            with pytest.raises(type(seen)) as caught:
                await start("flow", -1, instance_id="bad", tags=tags)
            assert str(caught.value) == str(seen)
            assert env.hub.calls.names.count("append") == appends
            assert await env.client.get("bad") is None
            assert await (await start("flow", 1, instance_id="good", tags=tags)).result() == 6

    run_virtual(main())


def test_before_a_start_it_may_wait_and_a_veto_after_call_next_is_one():
    app = an_app()

    @app.scheduling_middleware
    async def outer(info: SchedulingInfo, call_next: CallNext) -> None:
        await call_next()
        await pass_time(60)
        if info.input == 2:
            raise ValueError("too late is not too late")

    async def main() -> None:
        async with Environment(app) as env:
            began = env.now
            handle = await env.client.start("flow", 1)
            assert (env.now - began).total_seconds() >= 60
            assert await handle.result() == 6
            with pytest.raises(SchedulingVetoed, match="not too late"):
                await env.client.start("flow", 2, instance_id="i-2")
            assert await env.client.get("i-2") is None

    run_virtual(main())


def test_a_client_that_is_told_of_overload_comes_again():
    app = an_app()
    asked: Counter[str] = Counter()

    @app.scheduling_middleware
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        asked[info.instance_id] += 1
        if asked[info.instance_id] < 3:
            raise Overloaded("one moment", 1.0)
        await call_next()

    async def main() -> None:
        async with Environment(app) as env:
            handle = await env.client.start("flow", 1, instance_id="i")
            assert await handle.result() == 6

    run_virtual(main())
    assert asked == {"i": 3}


def test_a_schedule_can_be_made_and_its_starts_are_not_asked_for():
    app = an_app()

    @app.scheduling_middleware(sources=["start", "child", "timer", "event"])
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        raise ValueError("nothing may start")

    async def main() -> None:
        async with Environment(app) as env:
            await env.client.schedule("s", "flow", 1, every=60)
            await env.client.pause_schedule("s")  # which is an event
            await env.client.resume_schedule("s")
            await env.advance(timedelta(seconds=70))
            known = await env.client.get_schedule("s")
            assert known is not None
            assert known.started == 1

    run_virtual(main())


def waiting_app(error: Exception) -> App:
    """An app whose events from outside are looked at, and vetoed if they are negative."""
    app = App(payload_codec=Reversed())

    @app.orchestrator
    async def taker(ctx: OrchestrationContext) -> int:
        return await ctx.wait_for_event("number", int)

    @app.orchestrator
    async def sender(ctx: OrchestrationContext, to: str) -> str:
        try:
            ctx.send_event(to, "number", -1)
        except type(error) as vetoed:
            return str(vetoed)
        return "sent"

    @app.scheduling_middleware(sources=["event"])
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        assert (info.source, info.name, info.instance_id) == ("event", "number", "taker")
        if info.context is None:
            await pass_time(60)  # it runs on the host
        if info.input < 0:
            raise error
        await call_next()

    return app


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ValueError("negative"), SchedulingVetoed("negative")),
        (PayloadTooLarge("for you"), PayloadTooLarge("for you")),
    ],
)
def test_an_event_of_a_client_is_looked_at_like_one_of_an_orchestrator(
    error: Exception, seen: Exception
):
    async def main() -> None:
        async with Environment(waiting_app(error)) as env:
            handle = await env.client.start("taker", instance_id="taker")
            await env.settle()
            appends = env.hub.calls.names.count("append")
            began = env.now
            with pytest.raises(type(seen)) as caught:
                await handle.raise_event("number", -1)
            assert str(caught.value) == str(seen)
            assert env.hub.calls.names.count("append") == appends, "nothing is recorded"
            assert (env.now - began).total_seconds() >= 60
            told = await (await env.client.start("sender", "taker")).result()
            assert told == str(error), "the code gets the very exception"
            await handle.raise_event("number", 7)
            assert await handle.result() == 7

    run_virtual(main())


def test_who_looks_at_events_alone_is_not_asked_about_starts():
    async def main() -> None:
        async with Environment(waiting_app(ValueError("no"))) as env:
            began = env.now
            await env.client.start("taker", instance_id="taker")
            assert (env.now - began).total_seconds() < 60

    run_virtual(main())


START = r.Start("flow", Raw(b"1"))


class Vetted:
    """A hub whose middleware lets the first start pass, when it is told to, and no other."""

    def __init__(self) -> None:
        self.app = an_app()
        self.asked = 0
        self.lets_pass = asyncio.Event()
        self.answers: list[Answer] = []

        @self.app.scheduling_middleware
        async def before(info: SchedulingInfo, call_next: CallNext) -> None:
            self.asked += 1
            if self.asked > 1:
                raise ValueError("not again")
            await self.lets_pass.wait()
            await call_next()

    def start(self, hub: Hub, seq: int, instance_id: str = "i") -> None:
        """Have a copy of the same start come to a shard."""
        call = Forward(seq, 0, r.Origin("client", 1, 1), instance_id, START)
        hub.members[0].shard.submit(call, self.answers.append)

    @property
    def refusals(self) -> dict[int, str | None]:
        """By copy."""
        return {each.seq: each.refusal and each.refusal.code for each in self.answers}


def test_a_repetition_while_the_instance_is_looked_up_gets_no_verdict_of_its_own():
    async def main() -> None:
        vetted = Vetted()
        vetted.lets_pass.set()
        async with Hub(vetted.app, partitions=1, shards=1) as hub:
            await hub.until(lambda: hub.host_of(0))
            hub.calls.held.add("load")
            host = hub.host_of(0)
            assert host is not None
            vetted.start(hub, 1)
            await hub.until(lambda: host.loader.is_busy)
            vetted.start(hub, 2)
            await pass_time(1)
            assert vetted.answers == []
            hub.calls.held.clear()
            await hub.until(lambda: len(vetted.answers) == 2)
            vetted.start(hub, 3)  # of what is recorded
            await hub.until(lambda: len(vetted.answers) == 3)
            assert vetted.refusals == {1: None, 2: None, 3: None}
            assert vetted.asked == 1

    run_virtual(main())


def test_a_start_that_was_refused_after_it_was_let_pass_is_looked_at_again():
    async def main() -> None:
        vetted = Vetted()
        vetted.lets_pass.set()
        async with Hub(vetted.app, partitions=1, shards=1) as hub:
            await hub.until(lambda: hub.host_of(0))
            shard = hub.members[0].shard
            shard.unsaved_bytes_max = 0  # no room
            vetted.start(hub, 1)
            await hub.until(lambda: vetted.answers)
            shard.unsaved_bytes_max = 1_000_000
            vetted.start(hub, 2)
            await hub.until(lambda: len(vetted.answers) == 2)
            assert vetted.refusals == {1: "Overloaded", 2: "SchedulingVetoed"}

    run_virtual(main())


def test_a_verdict_holds_only_as_long_as_who_reached_it_owns_the_partition():
    async def main() -> None:
        vetted = Vetted()
        async with Hub(vetted.app, partitions=1, shards=1) as hub:
            await hub.until(lambda: hub.host_of(0))
            before = hub.host_of(0)
            vetted.start(hub, 1)
            await hub.until(lambda: vetted.asked)
            await hub.assign(0, hub.members[0])  # it was away meanwhile
            await hub.until(lambda: hub.host_of(0) not in {None, before})
            vetted.start(hub, 2)
            await hub.until(lambda: vetted.answers)
            vetted.lets_pass.set()
            await hub.until(lambda: len(vetted.answers) == 2)
            assert vetted.refusals == {1: "PartitionUnavailable", 2: "SchedulingVetoed"}

    run_virtual(main())


def test_nobody_is_told_of_a_veto_once_the_lease_is_over():
    async def main() -> None:
        vetted = Vetted()
        vetted.asked = 1
        async with Hub(vetted.app, partitions=1, shards=1) as hub:
            await hub.until(lambda: hub.host_of(0))
            member = hub.members[0]
            member.has_lease = False
            await hub.until(lambda: not member.shard.may_answer())
            vetted.start(hub, 1)
            await hub.until(lambda: vetted.answers)
            assert vetted.refusals == {1: "PartitionUnavailable"}

    run_virtual(main())


def test_a_start_is_either_recorded_or_vetoed_whatever_happens():
    """The middleware turns against every start that it has seen before.

    Under lost answers, repetitions and crashes the client asks again, and the middleware would
    say no. What was recorded must be confirmed nonetheless, and what is denied must not exist.
    """
    app = an_app()
    seen: set[str] = set()
    vetoed: Counter[bool] = Counter()

    @app.scheduling_middleware
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        await pass_time(0.01)
        if info.instance_id in seen:
            raise ValueError("not again")
        seen.add(info.instance_id)
        await call_next()

    async def scenario(client: Client) -> None:
        seen.clear()

        async def one(n: int) -> None:
            try:
                handle = await client.start("flow", n, instance_id=f"i-{n}")
            except SchedulingVetoed:
                assert await client.get(f"i-{n}") is None
                vetoed[True] += 1
            else:
                assert await handle.result() == 4 * n + 2
                vetoed[False] += 1

        await asyncio.gather(*(one(n) for n in range(4)))

    simulate(app, scenario, seeds=range(40))
    assert vetoed[True] > 0
    assert vetoed[False] > 40


def test_an_event_that_cannot_be_unsealed_is_refused():
    async def main() -> None:
        app = an_app(payload_codec=Reversed())
        app.scheduling_middleware(sources=["event"])(_let_pass)
        async with Environment(app) as env:
            await env.client.start("flow", 1, instance_id="i")
            shard = env.hub.members[0].shard
            answers: list[Answer] = []
            request = r.Raise("go", Raw(PREFIX + b'AAA"'))
            partition = partition_of("i", len(shard.hosts))
            shard.submit(Forward(1, partition, Origin("c", 1, 1), "i", request), answers.append)
            await pass_time(1)
            assert [answer.refusal and answer.refusal.code for answer in answers] == [
                "InputInvalid"
            ]

    run_virtual(main())
