"""Middleware around activities and before starts, on a whole hub, with crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import App, CallNext, ExecutionInfo, OrchestrationContext, RetryPolicy, SchedulingInfo
from shardrt.errors import OrchestrationFailed, Overloaded, PayloadTooLarge, SchedulingVetoed
from shardrt.testing import Environment, run_virtual, simulate
from shardrt.testing.virtual import pass_time

if TYPE_CHECKING:
    from shardrt.client import Client


class Reversed:
    """A payload codec: what is stored is never the text that is meant."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


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
            await env.advance(timedelta(seconds=70))
            known = await env.client.get_schedule("s")
            assert known is not None
            assert known.started == 1

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
