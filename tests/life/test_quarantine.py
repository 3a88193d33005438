"""A damaged row in a real store, as its operator sees it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner

from shardrt import App, OrchestrationContext, Runtime
from shardrt.cli import main
from shardrt.core.requests import Purge
from shardrt.errors import InstanceQuarantined
from tests.fake_host import HostThread
from tests.loops import in_loop

if TYPE_CHECKING:
    from pathlib import Path

app = App()


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> str:
    return str(await ctx.wait_for_event("go"))


def damage(path: Path, instance_id: str) -> None:
    with sqlite3.connect(path) as database:
        changed = database.execute(
            "UPDATE instances SET state = substr(state, 1, 40) WHERE instance_id = ?",
            (instance_id,),
        )
        assert changed.rowcount == 1
    database.close()


@in_loop
async def test_an_operator_sees_it_and_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Runtime(app, store=f"sqlite:///{path}", partitions=1) as runtime:
        await runtime.client.start(waiter, instance_id="bad")
        await runtime.client.start(waiter, instance_id="good")
    damage(path, "bad")
    async with Runtime(app, store=f"sqlite:///{path}", partitions=1) as runtime:
        client = runtime.client
        listed = {each.instance_id: each.reason async for each in client.list()}
        assert listed["good"] == ""
        assert listed["bad"].startswith("quarantined: its stored state cannot be decoded")
        with pytest.raises(InstanceQuarantined, match="instance 'bad' is quarantined"):
            await client.raise_event("bad", "go")
        (partition,) = (await client.cluster())["partitions"]
        assert partition["quarantined"] == ["bad"]
        told = (await client.explain("bad")).summary
        assert told.startswith("bad is Running: its stored state to be repaired, or it to be")
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            url = "/runtime/orchestrations/bad"
            assert "quarantined: " in (await http.get(url)).text
            assert (await http.post(f"{url}/terminate", json={})).status_code == 409
            assert (await http.delete(url)).status_code == 409
            assert (await http.delete(f"{url}?force=true")).json() == {"instancesDeleted": 1}
        assert await client.get("bad") is None
        await client.raise_event("good", "go", 1)
        await client.start(waiter, instance_id="bad")
        assert "quarantined" not in (await client.cluster())["partitions"][0]


def test_the_command_removes_one_by_force() -> None:
    with HostThread() as host:
        runner, environment = CliRunner(), {"SHARDRT_URL": host.url}
        runner.invoke(main, ["start", "hello", "--id", "a"], env=environment)
        wrong = runner.invoke(main, ["purge", "--force", "--name", "hello"], env=environment)
        assert wrong.exit_code == 2
        runner.invoke(main, ["purge", "a", "--force"], env=environment)
        assert host.do(lambda fake: fake.shard.requests[-1]) == Purge(force=True)
