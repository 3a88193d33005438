"""Asking a real host why an instance does not move."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner

from shardrt import App, OrchestrationContext, RetryPolicy, Runtime
from shardrt.cli import main
from shardrt.client.explaining import explain
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core.history import Status
from shardrt.errors import InstanceNotFound, OrchestratorNotRegistered, PartitionUnavailable
from shardrt.testing import Environment, run_virtual
from shardrt.testing.faults import Fault
from tests.fake_host import HostThread
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.client import Client

app = App()
gate = asyncio.Event()


@app.activity(retry=RetryPolicy(max_attempts=5, first_interval=3600.0, jitter=0.0))
async def flaky(name: str) -> str:
    raise OSError(name)


@app.activity
async def slow() -> None:
    await gate.wait()


@app.orchestrator
async def child(ctx: OrchestrationContext) -> str:
    return str(await ctx.wait_for_event("Go"))


@app.orchestrator
async def busy(ctx: OrchestrationContext) -> None:
    await asyncio.gather(
        ctx.call_activity(flaky, "x"),
        ctx.call_activity(slow),
        ctx.call_sub_orchestrator(child, instance_id="kid"),
        ctx.wait_for_event("Approval"),
        asyncio.sleep(3600),
    )


async def kinds(client: Client, instance_id: str) -> list[str]:
    return sorted(each.kind for each in (await client.explain(instance_id)).awaited)


@in_loop
async def test_everything_is_named() -> None:
    gate.clear()
    async with Runtime(app, partitions=4, settings={"host.drain_s": 0.05}) as runtime:
        client = runtime.client
        await client.start(busy, instance_id="a")

        async def is_settled() -> bool:
            found = (await client.explain("a")).awaited
            retried = any(each.due for each in found if each.kind == "activity")
            return retried and any(each.status == Status.RUNNING for each in found)

        await eventually(is_settled)
        explanation = await client.explain("a")
        by_name = {(each.kind, each.name or each.instance_id): each for each in explanation.awaited}
        assert by_name["event", "Approval"].text == "event 'Approval'"
        assert by_name["activity", "flaky"].attempt == 2
        assert "next attempt at" in by_name["activity", "flaky"].text
        assert "running or queued" in by_name["activity", "slow"].text
        assert by_name["child", "kid"].text == "child 'kid', Running"
        assert "timer due at" in by_name["timer", ""].text
        assert explanation.summary.startswith("a is Running: event 'Approval'; ")

        await client.suspend("a", "lunch")
        assert "to be resumed (lunch)" in (await client.explain("a")).summary

        later = await client.start(busy, start_at=timedelta(hours=1))
        assert await kinds(client, later.instance_id) == ["start"]
        with pytest.raises(InstanceNotFound):
            await client.explain("nobody")

        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            shape = (await http.get("/runtime/orchestrations/kid/why")).json()
            assert shape["awaited"] == [{"kind": "event", "text": "event 'Go'", "name": "Go"}]
            assert shape["runtimeStatus"] == "Running"
            missing = await http.get("/runtime/orchestrations/nobody/why")
            assert missing.status_code == 404

        await client.terminate("kid")
        assert (await client.explain("kid")).summary == "kid is Terminated"


def evicted(test: Callable[[Environment], Awaitable[None]], served: App = app) -> None:
    """Run a test on an instance "a" whose code is not in memory."""
    shard = ShardSettings(checkpoint_interval_s=0.01)

    async def main() -> None:
        async with Environment(served, settings=Settings(shard=shard)) as env:
            await env.client.start("waits", ["First", "Second"], instance_id="a")
            await env.settle()
            (member,) = env.hub.members
            member.shard.checkpointer.resident_bytes_max = 0
            await env.hub.until(lambda: member.shard.checkpointer.evictions)
            assert not len(member.shard.turns.executor)
            await test(env)

    run_virtual(main())


@app.orchestrator
async def waits(ctx: OrchestrationContext, names: list[str]) -> str:
    return " ".join([await ctx.wait_for_event(name, str) for name in names])


class Reverse:
    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


sealed = App(payload_codec=Reverse())
sealed.include(app)


@pytest.mark.parametrize("served", [app, sealed])
def test_code_that_was_evicted_is_rebuilt_to_name_its_events(served: App) -> None:
    async def test(env: Environment) -> None:
        client = env.client
        assert (await client.explain("a")).summary == "a is Running: event 'First'"
        await client.raise_event("a", "First", "1")
        await env.settle()
        assert (await client.explain("a")).summary == "a is Running: event 'Second'"
        await client.raise_event("a", "Second", "2")
        assert await client.handle("a").result() == "1 2"
        assert (await client.explain("a")).awaited == []

    evicted(test, served)


def test_code_that_does_not_fit_any_more_cannot_name_its_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise OrchestratorNotRegistered("gone")

    async def test(env: Environment) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(type(env.hub.app), "orchestrator_of", broken)
            assert await kinds(env.client, "a") == ["events"]
        assert await kinds(env.client, "a") == ["event"]

    evicted(test)


def test_code_that_is_suspended_is_not_run_to_name_its_events() -> None:
    async def test(env: Environment) -> None:
        (member,) = env.hub.members
        await env.client.suspend("a")
        assert await kinds(env.client, "a") == ["events", "resume"]
        assert not len(member.shard.turns.executor)
        await env.client.resume("a")
        member.shard.checkpointer.resident_bytes_max = 1 << 30
        env.hub.calls.held.add("history")
        asked = asyncio.create_task(kinds(env.client, "a"))
        await env.hub.until(lambda: "history" in env.hub.calls.names)
        await env.client.suspend("a")
        env.hub.calls.held.clear()
        await asked
        assert not len(member.shard.turns.executor)

    evicted(test)


def test_a_history_that_cannot_be_read_names_no_events() -> None:
    class NoHistory:
        def fault(self, number: int, name: str) -> Fault | None:
            return Fault.BEFORE if name == "history" else None

    async def test(env: Environment) -> None:
        env.hub.calls.plan = NoHistory()
        assert await kinds(env.client, "a") == ["events"]

    evicted(test)


def test_one_that_is_evicted_once_more_while_it_is_read_is_still_explained() -> None:
    async def test(env: Environment) -> None:
        env.hub.calls.held.add("history")
        (member,) = env.hub.members
        asked = asyncio.create_task(kinds(env.client, "a"))
        before = member.shard.checkpointer.evictions
        await env.hub.until(lambda: "history" in env.hub.calls.names)
        member.shard.checkpointer.evict()
        assert member.shard.checkpointer.evictions > before
        env.hub.calls.held.clear()
        assert await asked == ["events"]

    evicted(test)


def sleeping(test: Callable[[Environment], Awaitable[None]]) -> None:
    """Run a test on an instance "a" that is live and sleeps, and whose history is stored."""
    shard = ShardSettings(checkpoint_interval_s=0.01)

    async def main() -> None:
        async with Environment(app, settings=Settings(shard=shard)) as env:
            await env.client.start("sleeps", 3600, instance_id="a")
            await env.settle()
            (member,) = env.hub.members
            hosts = member.shard.hosts.values()
            (instance,) = [host.core.instances["a"] for host in hosts if host.core.instances]
            await env.hub.until(lambda: not instance.tail)
            await test(env)

    run_virtual(main())


@app.orchestrator
async def sleeps(ctx: OrchestrationContext, seconds: int) -> None:
    await ctx.create_timer(timedelta(seconds=seconds))


def test_since_when_is_read_from_the_history() -> None:
    async def test(env: Environment) -> None:
        (timer,) = (await env.client.explain("a")).awaited
        assert timer.kind == "timer"
        assert timer.since is not None
        assert timer.due == timer.since + timedelta(hours=1)

    sleeping(test)


def test_who_has_waited_in_vain_is_told_why_without_reading_the_history() -> None:
    async def test(env: Environment) -> None:
        with pytest.raises(TimeoutError, match="timer due at"):
            await env.client.handle("a").result(timeout=1)
        assert "history" not in env.hub.calls.names

    sleeping(test)


def test_a_history_that_takes_long_to_be_read_holds_up_no_answer() -> None:
    async def test(env: Environment) -> None:
        env.hub.calls.held.add("history")
        (timer,) = (await env.client.explain("a")).awaited
        assert timer.kind == "timer"
        assert timer.since is None
        assert "history" in env.hub.calls.names
        env.hub.calls.held.clear()
        (timer,) = (await env.client.explain("a")).awaited
        assert timer.since is not None

    sleeping(test)


@in_loop
async def test_a_partition_without_owner_is_the_answer() -> None:
    class Orphan:
        async def call(self, instance_id, request):
            raise PartitionUnavailable("nobody serves it")

        async def ask(self, question):
            row = {"partition": 0, "owner": None, "trouble": "record 7 is corrupt"}
            return json.dumps({"partitions": [row]}).encode()

    explanation = await explain(Orphan(), "a")
    assert explanation.summary == "partition 0 has no owner: record 7 is corrupt"
    assert explanation.status is None


def test_the_command_prints_lines_or_json() -> None:
    with HostThread() as host:
        runner, environment = CliRunner(), {"SHARDRT_URL": host.url}
        runner.invoke(main, ["start", "hello", "--id", "a"], env=environment)
        told = runner.invoke(main, ["why", "a"], env=environment)
        assert told.exit_code == 0, told.output
        assert "event 'approval'" in told.output
        shape = json.loads(runner.invoke(main, ["why", "a", "--json"], env=environment).stdout)
        assert shape["awaited"][0]["name"] == "approval"
        assert runner.invoke(main, ["why", "nobody"], env=environment).exit_code == 1
