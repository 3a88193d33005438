"""The embedded runtime."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardrt import App, Client, OrchestrationContext, Runtime
from shardrt.errors import (
    ConfigInvalid,
    HubMismatch,
    InputInvalid,
    OrchestrationFailed,
    OrchestratorNotRegistered,
    PartitionUnreachable,
    ShardrtError,
)
from shardrt.links.admin import Cluster
from shardrt.store.base import Host
from shardrt.store.memory import MemoryStore
from tests.supervisor.hosts import ServedHost
from tests.waiting import eventually, wait_until

if TYPE_CHECKING:
    from pathlib import Path

app = App()


@app.activity
async def double(number: int) -> int:
    return 2 * number


@app.orchestrator
async def doubled(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, number)


@app.orchestrator
async def approved(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("approval", str)


def test_an_orchestration_runs_to_its_result() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=4) as runtime:
            assert set(runtime.host.membership.serving()) == set(range(4))
            handle = await runtime.client.start(doubled, 21)
            assert await handle.result(timeout=10) == 42

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({}, logging.WARNING),
        ({"store": "memory://"}, logging.INFO),
        ({"settings": {"store.url": "memory://"}}, logging.INFO),
        ({"store": MemoryStore()}, None),
        ({"store": "sqlite:///{tmp}/hub.db"}, None),
        ({"settings": {"store.url": "sqlite:///{tmp}/hub.db"}}, None),
    ],
)
def test_a_hub_in_memory_is_said_to_be_volatile(
    given: dict[str, Any], level: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning if nobody has asked for it."""
    if isinstance(url := given.get("store"), str):
        given = {"store": url.format(tmp=tmp_path)}
    elif "settings" in given:
        given = {"settings": {"store.url": given["settings"]["store.url"].format(tmp=tmp_path)}}

    async def main() -> None:
        async with Runtime(app, partitions=2, **given):
            pass

    with caplog.at_level(logging.INFO, "shardrt.runtime"):
        asyncio.run(main())
    told = [each.levelno for each in caplog.records if "in memory" in each.message]
    assert told == ([] if level is None else [level])


def test_an_instance_that_fails_is_told_of_without_its_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        failing = App()

        @failing.orchestrator
        async def pay(ctx: OrchestrationContext, card: str) -> None:
            raise ValueError("no money")

        async with Runtime(failing, partitions=4) as runtime:
            handle = await runtime.client.start(pay, "1234 5678", instance_id="a")
            with pytest.raises(OrchestrationFailed):
                await handle.result(timeout=10)

    asyncio.run(main())
    [line] = [each for each in caplog.records if each.name == "shardrt.host.notices"]
    said = (line.levelname, line.getMessage())
    assert said == ("WARNING", "instance=a name=pay has failed: ValueError: no money")


def test_an_event_that_nobody_waits_for_is_seen() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=4) as runtime:
            await runtime.client.start(approved, instance_id="a")
            await runtime.client.raise_event("a", "aproval")

            async def summary() -> str:
                return (await runtime.client.explain("a")).summary

            async def is_seen() -> bool:
                return (
                    "event 'approval'; nothing of event 'aproval', which has come, and which "
                    "nobody waits for (1 of them)"
                ) in await summary()

            await eventually(is_seen)

    asyncio.run(main())


def test_an_attempt_that_took_too_long_says_how_long() -> None:
    async def main() -> None:
        slow = App()

        @slow.activity(timeout=0.05)
        async def sleepy() -> None:
            await asyncio.Event().wait()

        @slow.orchestrator
        async def nap(ctx: OrchestrationContext) -> None:
            await ctx.call_activity(sleepy)

        async with Runtime(slow, partitions=4) as runtime:
            handle = await runtime.client.start(nap)
            with pytest.raises(OrchestrationFailed, match=r"did not end within 0\.05 s"):
                await handle.result(timeout=10)

    asyncio.run(main())


def test_a_schedule_of_what_would_be_refused_is_refused() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=4) as runtime:
            with pytest.raises(OrchestratorNotRegistered, match=r"'dubled'.*; there is"):
                await runtime.client.schedule("s", "dubled", 1, every=60)
            with pytest.raises(InputInvalid):
                await runtime.client.schedule("s", "doubled", "one", every=60)
            await runtime.client.schedule("s", "doubled", 1, every=60)

    asyncio.run(main())


def test_what_waits_goes_on_in_the_next_runtime(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/hub.db"

    async def first() -> None:
        async with Runtime(app, store=store, partitions=4) as runtime:
            await runtime.client.start(approved, instance_id="a")

    async def second() -> None:
        async with Runtime(app, store=store, partitions=4) as runtime:
            await runtime.client.raise_event("a", "approval", "yes")
            assert await runtime.client.handle("a").result(timeout=10) == "yes"

    asyncio.run(first())
    asyncio.run(second())


def test_a_runtime_can_be_entered_again_but_not_twice_at_a_time() -> None:
    async def main() -> None:
        runtime = Runtime(app, store="memory://again", partitions=2)
        async with runtime:
            await runtime.client.start(doubled, 1, instance_id="a")
            with pytest.raises(ConfigInvalid, match="running already"):
                await runtime.__aenter__()
        async with runtime:
            assert await runtime.client.handle("a").result(timeout=10) == 2
        await runtime.close()

    asyncio.run(main())


def test_there_is_no_client_while_it_does_not_run() -> None:
    with pytest.raises(ShardrtError, match="not running"):
        _ = Runtime(app).client
    with pytest.raises(ShardrtError, match="not running"):
        _ = Runtime(app).host


def test_a_hub_with_another_partition_count_is_refused_and_nothing_is_left_running() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with Runtime(app, store=store, partitions=4):
            pass
        other = Runtime(app, store=store, partitions=8)
        with pytest.raises(HubMismatch):
            await other.__aenter__()
        assert len(asyncio.all_tasks()) == 1
        async with Runtime(app, store=store, partitions=4):
            pass

    asyncio.run(main())


def test_wrong_settings_are_refused_at_construction() -> None:
    with pytest.raises(ConfigInvalid, match=r"shard\.watchdog_s"):
        Runtime(app, settings={"shard.watchdog_s": -1.0})


PARTITIONS = 4
IDS = [f"i!{number}" for number in range(PARTITIONS)]


def hosted(store: MemoryStore, **options: Any) -> Runtime:
    """Return one of several runtimes on a store."""
    quick = {"host.lease_ttl_s": 0.5}
    return Runtime(app, store=store.sibling(), partitions=PARTITIONS, settings=quick, **options)


def shares(*runtimes: Runtime) -> list[int]:
    return [len(runtime.host.membership.serving()) for runtime in runtimes]


async def run_everywhere(client: Client) -> None:
    """Start and await an instance in each partition."""
    for number, each in enumerate(IDS):
        handle = await client.start(doubled, number, instance_id=each, on_conflict="return")
        assert await handle.result(timeout=10) == 2 * number


def test_a_second_runtime_on_the_store_takes_its_share() -> None:
    async def main() -> None:
        store = MemoryStore()
        one, other = (hosted(store, listen="127.0.0.1:0") for _ in range(2))
        async with one:
            async with other:
                await eventually(lambda: shares(one, other) == [2, 2])
                await run_everywhere(one.client)
                await run_everywhere(other.client)
                async with await Client.connect(other.address) as client:
                    await run_everywhere(client)
                waiting = await one.client.start(approved, instance_id="a!0")
                results = [
                    asyncio.ensure_future(each.client.handle("a!0").result(timeout=10))
                    for each in (one, other)
                ]
                await eventually(lambda: all(each.client._session._waits for each in (one, other)))
                await other.client.raise_event(waiting.instance_id, "approval", "yes")
                assert await asyncio.gather(*results) == ["yes", "yes"]
            await eventually(lambda: shares(one) == [4])
            await run_everywhere(one.client)

    asyncio.run(main())


def test_a_runtime_that_cannot_be_reached_leaves_everything_to_those_that_can() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with hosted(store) as hidden:
            assert shares(hidden) == [4]
            async with hosted(store, listen="127.0.0.1:0") as open_:
                await eventually(lambda: shares(hidden, open_) == [0, 4])
                await run_everywhere(hidden.client)
            await eventually(lambda: shares(hidden) == [4])
            await run_everywhere(hidden.client)

    asyncio.run(main())


def test_of_runtimes_that_cannot_be_reached_one_does_everything() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with hosted(store) as one, hosted(store, host_id="two") as other:
            assert shares(one, other) == [4, 0]
            # At once, once it is clear that the other one is not the rest of a crash.
            with pytest.raises(PartitionUnreachable, match="no address to be reached at: give"):
                await other.client.start(doubled, 4, instance_id="i!0")
            assert [one.host.health().is_ready, other.host.health().is_ready] == [True, False]
            async with http_to(other) as http:
                refused = await http.get("/runtime/orchestrations/i!0")
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                ready = await http.get("/health/ready")
                assert ready.status_code == 503
                assert ready.json()["message"].startswith("not ready: reach")
            await one.close()
            await eventually(lambda: other.host.health().is_ready)
            await run_everywhere(other.client)

    asyncio.run(main())


def test_the_rest_of_a_crash_is_waited_for() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        await store.create(PARTITIONS)
        await store.renew(Host("dead", "1", "", 1, 0), 2_000_000)
        for number in range(PARTITIONS):
            await store.claim(number, 0, "dead/1")
        async with hosted(store) as other:
            assert not other.host.health().is_ready
            await run_everywhere(other.client)
            assert other.host.health().is_ready

    asyncio.run(main())


def http_to(runtime: Runtime) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=runtime.asgi())
    return httpx.AsyncClient(transport=transport, base_url="http://there")


@pytest.mark.parametrize("listen", ["127.0.0.1", "8520", ":8520", "localhost:http", ""])
def test_an_address_to_listen_on_has_a_port(listen: str) -> None:
    with pytest.raises(ConfigInvalid, match="listen: write it as"):
        Runtime(app, listen=listen)


def test_an_address_that_others_reach_needs_a_token() -> None:
    with pytest.raises(ConfigInvalid, match="token"):
        Runtime(app, listen="0.0.0.0:0")


def test_it_lives_as_long_as_an_asgi_application() -> None:
    async def main() -> None:
        runtime = Runtime(app, partitions=2)
        async with runtime.lifespan(None):
            handle = await runtime.client.start(doubled, 4)
            assert await handle.result(timeout=10) == 8
        with pytest.raises(ShardrtError, match="not running"):
            _ = runtime.client

    asyncio.run(main())


def test_its_host_describes_partitions_and_lags() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=2, host_id="here") as runtime:
            handle = await runtime.client.start(doubled, 4)
            await handle.result(timeout=10)
            facts = runtime.host.describe()
        assert (facts["host_id"], facts["lease"]) == ("here", "held")
        assert [host["host_id"] for host in facts["hosts"]] == ["here"]
        assert [row["phase"] for row in facts["partitions"]] == ["serving"] * 2
        assert sum(row["commit_lsn"] for row in facts["partitions"]) > 0

    asyncio.run(main())


def test_its_management_api_can_be_mounted_before_it_runs() -> None:
    async def main() -> None:
        runtime = Runtime(app, partitions=2)
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            assert (await http.get("/health/ready")).status_code == 503
            assert (await http.get("/runtime/orchestrations/a")).status_code == 503
            async with runtime:
                assert (await http.get("/health/ready")).status_code == 200
                body = {"input": 4, "instanceId": "a"}
                started = await http.post("/runtime/orchestrations/start/doubled", json=body)
                assert started.status_code == 202
                await runtime.client.handle("a").result(timeout=10)
                seen = (await http.get("/runtime/orchestrations/a")).json()
        assert (seen["runtimeStatus"], seen["output"]) == ("Completed", 8)

    asyncio.run(main())


PROGRAM = """
import asyncio, logging, sys
from shardrt import App, Runtime
logging.basicConfig(level="INFO")
Runtime(App(), store="sqlite:///hub.db", partitions=2).run()
"""


@pytest.mark.proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal_and_drains(tmp_path: Path, number: signal.Signals) -> None:
    host = ServedHost(tmp_path, [sys.executable, "-c", PROGRAM])
    try:
        wait_until(lambda: "serves" in host.errors)
        host.signal(number)
        assert host.wait() == 0, host.errors
        assert "leaving → left" in host.errors
        assert "Traceback" not in host.errors
    finally:
        host.end()


def test_its_client_is_a_client() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            assert isinstance(runtime.client, Client)
            assert await runtime.client.get("nobody") is None
            cluster = json.loads(bytes(await runtime.client.ask(Cluster())))
            assert cluster["host_id"] == runtime.host_id

    asyncio.run(main())
