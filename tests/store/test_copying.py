"""A hub that moves from a file to PostgreSQL, with everything that is alive in it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from shardrt import App, EntityContext, EntityId, OrchestrationContext, Runtime, StartRequest
from shardrt.errors import CommitUnknown, ConfigInvalid, EpochFenced, HubMismatch, StoreUnavailable
from shardrt.host.verifying import verify
from shardrt.store import copying
from shardrt.store.copying import copy_hub
from shardrt.store.factory import make_store
from tests.loops import in_loop
from tests.serving import cli
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

LIVE = 1_000
UNSAFE: dict[str, object] = {"store.unsafe": True}
"""The tests' server runs without fsync."""

app = App()
released: set[str] = set()


@app.activity
async def slow(name: str) -> str:
    await eventually(lambda: name in released, within_s=60)
    return name


@app.orchestrator
async def waits(ctx: OrchestrationContext, number: int) -> list[Any]:
    before = await ctx.call_activity(slow, "first")
    return [before, number, await ctx.wait_for_event("go", int)]


@app.orchestrator
async def parent(ctx: OrchestrationContext, number: int) -> Any:
    return await ctx.call_sub_orchestrator(waits, number, instance_id="child")


@app.orchestrator
async def works(ctx: OrchestrationContext, number: int) -> Any:
    return await ctx.call_activity(slow, "second")


@app.orchestrator
async def sleeps(ctx: OrchestrationContext, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@app.entity(name="counter")
def counter(ctx: EntityContext, number: int | None) -> int:
    total = ctx.get_state(int) or 0
    ctx.set_state(total + (number or 0))
    return total + (number or 0)


async def fill(runtime: Runtime) -> None:
    """Have a thousand instances wait, one of each other kind, and an entity."""
    client = runtime.client
    released.add("first")
    requests = [StartRequest(waits, number, instance_id=f"w{number}") for number in range(LIVE)]
    await client.start_many(requests)
    await client.start(parent, 7, instance_id="parent")
    await client.start(works, 0, instance_id="works")
    await client.start(sleeps, 3.0, instance_id="sleeps")
    await client.start(sleeps, 0.0, instance_id="ended", tags={"kind": "é"})
    await client.call_entity(EntityId("counter", "a"), "add", 3)
    await client.handle("ended").result()

    async def waiting() -> bool:
        found = (await client.explain(f"w{LIVE - 1}")).awaited
        return [each.kind for each in found] == ["event"]

    await eventually(waiting, within_s=60)


async def go_on(runtime: Runtime) -> None:
    """Check that everything ends as if nothing had happened."""
    client = runtime.client
    released.add("second")
    assert await client.handle("ended").result() == "slept"
    await asyncio.gather(*(client.raise_event(f"w{n}", "go", n) for n in range(LIVE)))
    await client.raise_event("child", "go", 8)
    results = await asyncio.gather(*(client.handle(f"w{n}").result(60) for n in range(LIVE)))
    assert results == [["first", n, n] for n in range(LIVE)]
    assert await client.handle("parent").result(60) == ["first", 7, 8]
    assert await client.handle("works").result(60) == "second"
    assert await client.handle("sleeps").result(60) == "slept"
    assert await client.call_entity(EntityId("counter", "a"), "add", 4) == 7
    history = await client.history("w0")
    assert [each.kind for each in history].count("TaskCompleted") == 1


async def assert_sound(url: str) -> None:
    store = make_store(url, unsafe=True)
    await store.open()
    try:
        assert (await verify(store)).findings == []
    finally:
        await store.close()


def dead_copy(source: Path, target: Path) -> None:
    """Copy a file as it would be if its host were killed now, and its lease over."""
    with (
        contextlib.closing(sqlite3.connect(source)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)
        other.execute("DELETE FROM hosts")
        other.commit()


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
@in_loop
async def test_a_thousand_live_instances_go_on(
    tmp_path: Path, hub_dsn: str, *, is_killed: bool
) -> None:
    released.clear()
    here, killed = tmp_path / "hub.db", tmp_path / "killed.db"
    settings: dict[str, object] = {"host.drain_s": 0.1}
    if is_killed:
        settings["shard.checkpoint_interval_s"] = 3600.0  # all of it is in the journal
    async with Runtime(app, store=f"sqlite:///{here}", partitions=4, settings=settings) as runtime:
        await fill(runtime)
        if is_killed:
            await asyncio.to_thread(dead_copy, here, killed)
    url = f"sqlite:///{killed if is_killed else here}"
    told: dict[str, int] = {}

    def progress(table: str, rows: int, total: int) -> None:
        told[table] = told.get(table, 0) + rows
        assert told[table] <= total

    sizes = await copy_hub(url, hub_dsn, unsafe=True, progress=progress)
    assert told == {table: rows for table, (rows, _) in sizes.items()}
    assert sizes["journal" if is_killed else "instances"][0] >= (4 if is_killed else LIVE)
    await assert_sound(hub_dsn)
    async with Runtime(app, store=hub_dsn, partitions=4, settings=UNSAFE) as runtime:
        await go_on(runtime)
    await assert_sound(hub_dsn)


async def small_hub(path: Path) -> str:
    url = f"sqlite:///{path}"
    async with Runtime(app, store=url, partitions=2) as runtime:
        await runtime.client.start(sleeps, 0.0, instance_id="a")
        await runtime.client.handle("a").result()
    return url


@in_loop
async def test_what_is_served_is_not_copied(tmp_path: Path, hub_dsn: str) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    async with Runtime(app, store=url, partitions=2, host_id="busy"):
        with pytest.raises(ConfigInvalid, match="is being served by busy: stop it first"):
            await copy_hub(url, hub_dsn, unsafe=True)
    await copy_hub(url, hub_dsn, unsafe=True)


@in_loop
async def test_what_is_in_use_is_not_overwritten(tmp_path: Path, hub_dsn: str) -> None:
    url = await small_hub(tmp_path / "hub.db")
    await copy_hub(url, hub_dsn, unsafe=True)
    with pytest.raises(HubMismatch, match="is in use"):
        await copy_hub(url, hub_dsn, unsafe=True)
    async with Runtime(app, store=f"sqlite:///{tmp_path}/3.db", partitions=3):
        pass
    with pytest.raises(HubMismatch, match="2 partitions, not 3"):
        await copy_hub(f"sqlite:///{tmp_path}/3.db", hub_dsn, unsafe=True)


@in_loop
async def test_a_copy_that_does_not_add_up_leaves_nothing(
    tmp_path: Path, hub_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await small_hub(tmp_path / "hub.db")
    convert = copying._converted

    def loses(table: str, row: tuple[object, ...]) -> tuple[object, ...]:
        return (*row[:-1], b"") if table == "history" else convert(table, row)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_converted", loses)
        with pytest.raises(StoreUnavailable, match="nothing was copied"):
            await copy_hub(url, hub_dsn, unsafe=True)
    await copy_hub(url, hub_dsn, unsafe=True)


@in_loop
async def test_a_host_that_thaws_after_its_hub_was_copied_can_write_no_more(
    tmp_path: Path, hub_dsn: str
) -> None:
    url = await small_hub(tmp_path / "hub.db")
    frozen = make_store(url)
    await frozen.open()
    try:
        head = (await frozen.view()).partitions[0]
        epoch = await frozen.claim(0, head.epoch, "frozen/1")
        assert epoch is not None
        await copy_hub(url, hub_dsn, unsafe=True)
        with pytest.raises(EpochFenced):
            await frozen.head(0, epoch)
    finally:
        await frozen.close()


@pytest.mark.parametrize("is_there", [False, True])
@in_loop
async def test_a_connection_that_breaks_in_the_commit_leaves_it_open_what_is_there(
    tmp_path: Path, hub_dsn: str, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    url = await small_hub(tmp_path / "hub.db")
    commit = psycopg.Connection.commit

    def breaks(connection: psycopg.Connection[Any]) -> None:
        if is_there:
            commit(connection)
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "commit", breaks)
        with pytest.raises(CommitUnknown, match="`shardrt db status` shows it"):
            await copy_hub(url, hub_dsn, unsafe=True)
    with pytest.raises(HubMismatch) if is_there else contextlib.nullcontext():
        await copy_hub(url, hub_dsn, unsafe=True)


@in_loop
async def test_what_is_no_hub_is_told(tmp_path: Path, hub_dsn: str) -> None:
    with pytest.raises(ConfigInvalid, match="there is no file"):
        await copy_hub(f"sqlite:///{tmp_path}/none.db", hub_dsn)
    with contextlib.closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(StoreUnavailable, match="there is no hub in this file"):
        await copy_hub(f"sqlite:///{tmp_path}/empty.db", hub_dsn, unsafe=True)


@pytest.mark.slow
@pytest.mark.proc
@in_loop
async def test_the_commands(tmp_path: Path, hub_dsn: str) -> None:
    url = await small_hub(tmp_path / "hub.db")

    async def run(*arguments: str) -> tuple[int, str]:
        done = await asyncio.to_thread(cli, *arguments)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    code, said = await run("db", "status", "--store", url)
    assert code == 0
    assert "schema: 2\npartitions: 2\nhosts: none\nCompleted: 1\n" in said
    assert (await run("db", "status", "--store", f"sqlite:///{tmp_path}/none.db"))[0] == 2
    assert (await run("db", "copy", "--from", hub_dsn, "--to", url))[0] == 2
    code, said = await run("db", "copy", "--from", url, "--to", hub_dsn, "--unsafe")
    assert (code, said.split(",")[0]) == (0, "checkpoints: 2 rows")
    assert (await run("db", "copy", "--from", url, "--to", hub_dsn, "--unsafe"))[0] == 2
    code, said = await run("db", "status", "--store", hub_dsn)
    assert code == 0
    assert "Completed: 1" in said
    code, said = await run("db", "upgrade", "--store", hub_dsn)
    assert code == 0
    assert said.endswith(", as it is\n")
    with psycopg.connect(hub_dsn.partition("?")[0]) as connection:
        schema = hub_dsn.rpartition("schema=")[2]
        connection.execute(f"UPDATE {schema}.migrations SET version = 99 WHERE version = 1")
    code, said = await run("db", "status", "--store", hub_dsn)
    assert "schema: 99, newer than" in said
