"""The embedded runtime."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from shardrt import App, Client, OrchestrationContext, Runtime
from shardrt.errors import ConfigInvalid, HubMismatch, ShardrtError
from shardrt.links.admin import Cluster
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


def test_a_second_runtime_on_the_store_takes_its_share() -> None:
    async def main() -> None:
        store = MemoryStore()
        quick = {"host.lease_ttl_s": 0.5}
        async with Runtime(app, store=store, partitions=4, settings=quick) as one:
            async with Runtime(app, store=store.sibling(), partitions=4, settings=quick) as other:

                def shares() -> list[int]:
                    return [len(runtime.host.membership.serving()) for runtime in (one, other)]

                await eventually(lambda: shares() == [2, 2])
            await eventually(lambda: shares_of(one) == 4)

    def shares_of(runtime: Runtime) -> int:
        return len(runtime.host.membership.serving())

    asyncio.run(main())


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
