from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy
from shardrt.errors import (
    ActivityNotRegistered,
    OrchestrationFailed,
    OrchestrationTerminated,
    ShardrtError,
)
from shardrt.testing import Deadlock, Environment, run_virtual
from shardrt.testing.environment import EVER_S
from shardrt.testing.faults import Fault
from shardrt.testing.hub import Hub
from shardrt.testing.storm import depose
from shardrt.testing.virtual import VirtualLoop, pass_time

if TYPE_CHECKING:
    from shardrt.config import Settings

app = App()
calls: list[str] = []
DAY = timedelta(days=1)


@dataclass
class Order:
    id: str
    amount: float


@app.activity
async def charge(order: Order) -> str:
    calls.append(order.id)
    return f"receipt-{order.id}"


@app.activity
def render(text: str) -> str:
    return f"<{text}>"


@app.activity(executor="process")
def crunch(number: int) -> int:
    return number * 2


@app.activity(
    retry=RetryPolicy(max_attempts=5, first_interval=3600, backoff=4, max_interval=86400, jitter=0)
)
async def flaky(ctx: ActivityContext) -> int:
    if ctx.attempt < 4:
        raise OSError("not yet")
    return ctx.attempt


@app.activity
async def nap(seconds: float) -> float:
    await pass_time(seconds)
    return seconds


@app.activity(timeout=3600)
async def stuck() -> None:
    await asyncio.Event().wait()


@app.orchestrator
async def month(ctx: OrchestrationContext) -> str:
    start = ctx.current_utc_datetime
    await asyncio.sleep(30 * 86400)
    await ctx.create_timer(timedelta(hours=72))
    return str((ctx.current_utc_datetime - start).days)


@app.orchestrator
async def retried(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(flaky)


@app.orchestrator
async def approved(ctx: OrchestrationContext, order: Order) -> str:
    receipt = await ctx.call_activity(charge, order)
    try:
        async with asyncio.timeout(86400):
            await ctx.wait_for_event("approval", bool)
    except TimeoutError:
        return "too late"
    return receipt


@app.orchestrator
async def forever(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_event("never")


@app.orchestrator
async def one(ctx: OrchestrationContext, call: tuple[str, Any]) -> Any:
    return await ctx.call_activity(*call)


def in_environment(test: Any, **options: Any) -> Any:
    async def main() -> Any:
        async with Environment(app, **options) as env:
            return await test(env)

    calls.clear()
    return run_virtual(main())


def test_a_month_takes_no_time():
    async def test(env: Environment) -> None:
        before = env.now
        handle = await env.client.start(month)
        assert await handle.result() == "33"
        assert timedelta(days=33) <= env.now - before < timedelta(days=33, seconds=1)

    began = time.perf_counter()
    in_environment(test)
    assert time.perf_counter() - began < 2


def test_retries_and_their_pauses_take_no_time():
    async def test(env: Environment) -> None:
        before = env.now
        assert await (await env.client.start(retried)).result() == 4
        assert round((env.now - before).total_seconds()) == 3600 * (1 + 4) + 3600 * 16

    in_environment(test)


def test_an_approval_comes_in_time_or_not():
    async def test(env: Environment) -> None:
        late = await env.client.start(approved, Order("a", 1.0))
        early = await env.client.start(approved, Order("b", 1.0))
        await env.advance(timedelta(hours=23))
        await early.raise_event("approval", True)
        assert await early.result() == "receipt-b"
        status = await late.status()
        assert status is not None
        assert not status.is_final
        await env.advance(timedelta(hours=1))
        status = await late.status()
        assert status is not None
        assert status.output == "too late"

    in_environment(test)


def test_activities_of_all_kinds_run():
    async def test(env: Environment) -> None:
        wanted = {("render", "x"): "<x>", ("crunch", 4): 8, ("nap", 86400.0): 86400.0}
        for call, result in wanted.items():
            assert await (await env.client.start(one, call)).result() == result
        handle = await env.client.start(one, ("stuck", None))
        with pytest.raises(OrchestrationFailed, match="TimeoutError"):
            await handle.result()

    in_environment(test)


@pytest.mark.parametrize(
    "stub", [lambda order: order.id + "!", AsyncMock(return_value="a!")], ids=["function", "mock"]
)
def test_activities_are_replaced(stub: Any):
    async def test(env: Environment) -> None:
        handle = await env.client.start(approved, Order("a", 1.0))
        await handle.raise_event("approval", True)
        assert await handle.result() == "a!"
        assert calls == []
        env.stub("charge", None)
        assert (
            await (await env.client.start(one, ("charge", Order("b", 1)))).result() == "receipt-b"
        )

    in_environment(test, stubs={"charge": stub})


def test_a_stub_may_take_the_context_and_its_own_type():
    async def test(env: Environment) -> None:
        def stub(raw: dict[str, Any], ctx: ActivityContext) -> str:
            return f"{raw['id']} {ctx.attempt}"

        env.stub("charge", stub)
        assert await (await env.client.start(one, ("charge", Order("c", 1)))).result() == "c 1"
        with pytest.raises(ActivityNotRegistered):
            env.stub("change", stub)

    in_environment(test)


def test_a_crash_in_the_middle_is_survived():
    async def test(env: Environment) -> None:
        handle = await env.client.start(approved, Order("a", 1.0), instance_id="o")
        result = asyncio.create_task(handle.result())
        await env.settle()
        for _ in range(3):
            await env.crash()
        await handle.raise_event("approval", True)
        assert await result == "receipt-a"
        assert calls == ["a"]
        assert env.hub.crashes == 3

    in_environment(test)


def test_what_waits_for_nothing_is_named():
    async def test(env: Environment) -> None:
        await (await env.client.start(forever, instance_id="f")).result()

    with pytest.raises(Deadlock, match="forever 'f'"):
        in_environment(test)


def test_starts_are_delayed_by_virtual_time():
    async def test(env: Environment) -> None:
        handle = await env.client.start(one, ("render", "x"), start_at=DAY)
        before = env.now
        assert await handle.result() == "<x>"
        assert env.now - before >= DAY - timedelta(seconds=1)

    in_environment(test)


def test_other_loops_are_refused():
    async def main() -> None:
        async with Environment(app):
            pass

    with pytest.raises(ShardrtError, match="run_virtual"):
        asyncio.run(main())
    with pytest.raises(ShardrtError, match="async with"):
        _ = Environment(app).client


def test_it_can_be_driven_from_within_another_loop():
    async def outer() -> str:
        async def inner() -> str:
            async with Environment(app) as env:
                return str(await (await env.client.start(month)).result())

        return run_virtual(inner())

    assert asyncio.run(outer()) == "33"


def test_what_waits_for_the_next_record_does_not_hold_up_time(monkeypatch: pytest.MonkeyPatch):
    """Such as that a client was forgotten, in a partition where nothing happens any more."""
    jumps: list[float] = []
    jump = VirtualLoop._jump

    def counted(loop: VirtualLoop) -> None:
        jump(loop)
        jumps.append(loop.time())

    monkeypatch.setattr(VirtualLoop, "_jump", counted)

    async def test(env: Environment) -> None:
        for _ in range(8):
            await (await env.client.start(one, ("render", "x"))).result()
        handle = await env.client.start(month)
        await env.advance(timedelta(hours=2))
        assert any(host.core.entries for host in env.hub._hosts())
        assert await handle.result() == "33"

    in_environment(test)
    assert len(jumps) < 5000


def test_a_crash_while_a_question_is_asked_is_survived():
    async def test(env: Environment) -> None:
        await env.client.start(forever, instance_id="f")
        await env.advance(timedelta(seconds=2))
        env.hub.calls.held.add("query")
        asked = asyncio.create_task(listed(env))
        await env.hub.until(lambda: "query" in env.hub.calls.names)
        assert env._is_busy()
        await env.crash()
        env.hub.calls.held.clear()
        assert await asked == ["f"]

    in_environment(test)


def test_a_question_that_the_store_did_not_answer_is_asked_again():
    class FirstQuery:
        def fault(self, number: int, name: str) -> Fault | None:
            return Fault.BEFORE if name == "query" and names.count("query") == 1 else None

    async def test(env: Environment) -> None:
        await env.client.start(forever, instance_id="f")
        await env.advance(timedelta(seconds=2))
        names.clear()
        env.hub.calls.names = names
        env.hub.calls.plan = FirstQuery()
        assert await listed(env) == ["f"]
        assert names.count("query") == 2

    names: list[str] = []
    in_environment(test)


def test_a_hand_over_is_settled_once_it_has_ended():
    async def test(env: Environment) -> None:
        env.hub.calls.latency_s = (0.01, 0.02)
        await env.client.start(forever)
        await env.settle()
        for partition in range(env.hub.partitions):
            env.hub.revoke(partition)
        await env.hub.until(lambda: any(host.draining for host in env.hub._hosts()))
        await env.settle()
        assert [host.epoch for host in env.hub._hosts()] == [2] * env.hub.partitions

    in_environment(test)


def test_nothing_has_ended_while_a_deposed_owner_keeps_clients_waiting():
    async def test(env: Environment) -> None:
        handle = await env.client.start(forever)
        result = asyncio.create_task(handle.result())
        await env.settle()
        env.hub.spawn(depose_all(env.hub, 2.0))
        await env.hub.until(lambda: [host.epoch for host in env.hub._hosts()] == [2] * 4)
        await handle.terminate("now")
        with pytest.raises(OrchestrationTerminated):
            await result

    with_two_shards(test)


def with_two_shards(test: Any) -> None:
    class Two(Environment):
        def _make_hub(self, app: App, seed: int, settings: Settings) -> Hub:
            return Hub(app, shards=2, latency_s=(0.0, 0.0), lease_s=EVER_S)

    async def main() -> None:
        async with Two(app) as env:
            await test(env)

    run_virtual(main())


async def depose_all(hub: Hub, zombie_s: float) -> None:
    await asyncio.gather(*(depose(hub, each, zombie_s) for each in range(hub.partitions)))


async def listed(env: Environment) -> list[str]:
    return [each.instance_id async for each in env.client.list()]
