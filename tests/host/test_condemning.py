"""Code that has ended shards is not run any more, and its neighbours are."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import Raw

from shardrt import App, OrchestrationContext, RetryPolicy
from shardrt.config import Settings
from shardrt.core import history as h, requests as r
from shardrt.host.activity_pool import ActivityPool
from shardrt.host.black_box import Orchestrator
from shardrt.host.condemning import DEADLY, forbid
from shardrt.links.control import DEATHS_MAX, Blamed, Condemned
from shardrt.testing.client import HubClient
from shardrt.testing.hub import OWNER, Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.core.effects import RunActivity

app = App()
ran: list[str] = []


@app.orchestrator
async def poison(ctx: OrchestrationContext) -> str:
    ran.append(ctx.instance_id)
    await ctx.wait_for_event("go")
    return "fine"


@app.activity
async def slow(text: str) -> str:
    ran.append(text)
    await pass_time(5)
    return text


@app.orchestrator
async def works(ctx: OrchestrationContext, attempts: int) -> str:
    retry = RetryPolicy(max_attempts=attempts, first_interval=1.0, jitter=0.0)
    try:
        return await ctx.call_activity(slow, ctx.instance_id, retry=retry)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


@app.entity
class Counter:
    value: int = 0

    def add(self, value: int) -> int:
        ran.append("entity")
        self.value += value
        return self.value


def in_hub(test: Callable[[Hub, HubClient], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        ran.clear()

        async def main() -> None:
            async with Hub(app, partitions=1, shards=1) as hub:
                await test(hub, HubClient(hub))
                assert not hub.broken

        run_virtual(main())

    run.__name__ = test.__name__
    return run


async def reopen(hub: Hub, *blamed: Blamed) -> None:
    """Have the partition opened anew by a shard that is told who is to blame."""
    member = hub.owners[0]
    member.shard.discard(0)
    ran.clear()
    seen = (await hub.store.view()).partitions[0].epoch
    epoch = await hub.store.claim(0, seen, OWNER)
    assert epoch is not None
    member.shard.assign(0, epoch, blamed)
    await hub.until(lambda: hub.host_of(0) and hub.host_of(0).release.durable)  # type: ignore[union-attr]


def convicted(instance_id: str, execution_id: str = "", task_id: int | None = None) -> Blamed:
    return Blamed(instance_id, execution_id, task_id, DEATHS_MAX)


@in_hub
async def test_an_instance_is_suspended_before_its_code_runs(hub: Hub, client: HubClient) -> None:
    await client.start("poison", None, "bad")
    await client.start("poison", None, "good")
    await reopen(hub, convicted("bad"), Blamed("good", deaths=DEATHS_MAX - 1))
    await client.raise_event("bad", "go")
    found = await client.get("bad")
    assert found is not None
    assert found.status is h.Status.SUSPENDED
    await client.raise_event("good", "go")
    assert await client.result("good") == "fine"
    assert "bad" not in ran


@in_hub
async def test_the_verdict_is_durable_and_resume_lifts_it(hub: Hub, client: HubClient) -> None:
    await client.start("poison", None, "bad")
    await hub.quiet()
    await pass_time(5)  # it is in the store, and not looked at when the partition is opened
    await reopen(hub, convicted("bad"))
    found = await client.get("bad")
    assert found is not None
    assert found.status is h.Status.SUSPENDED
    await client.raise_event("bad", "go")
    await hub.quiet()
    await reopen(hub)
    found = await client.get("bad")
    assert found is not None
    assert found.status is h.Status.SUSPENDED
    assert found.reason == "quarantined: its code was running in 3 deaths of shard processes"
    assert ran == []
    await client.call("bad", r.Resume())
    assert await client.result("bad") == "fine"


@in_hub
async def test_one_that_never_came_to_be_is_suspended_when_it_does(
    hub: Hub, client: HubClient
) -> None:
    await reopen(hub, convicted("bad"))
    await client.start("poison", None, "bad")
    await client.raise_event("bad", "go")
    await hub.quiet()
    found = await client.get("bad")
    assert found is not None
    assert found.status is h.Status.SUSPENDED
    assert ran == []
    await client.call("bad", r.Resume())
    assert await client.result("bad") == "fine"


@in_hub
async def test_an_attempt_has_failed_and_its_policy_decides(hub: Hub, client: HubClient) -> None:
    await client.start("works", 1, "once")
    await client.start("works", 2, "twice")
    await client.start("works", 1, "other")
    await hub.until(lambda: len(ran) == 3)
    core = hub.owners[0].shard.hosts[0].core
    executions = {name: each.execution_id for name, each in core.instances.items()}
    executions["other"] = "an earlier one"
    await reopen(
        hub,
        *(convicted(name, execution_id, 1) for name, execution_id in executions.items()),
        convicted("once", executions["once"], 99),
        convicted("nobody", "x", 1),
    )
    told = "ShardDied: it was running in 3 deaths of shard processes"
    assert (await client.result("once")).endswith(told)
    assert ran == ["other"]
    assert await client.result("twice") == "twice"
    assert await client.result("other") == "other"
    assert ran == ["other", "twice"]


@in_hub
async def test_an_entity_is_parked(hub: Hub, client: HubClient) -> None:
    await client.call("@counter@a", r.SignalEntity("add", Raw(b"1")))
    await hub.quiet()
    await reopen(hub, convicted("@counter@a"))
    await client.call("@counter@a", r.SignalEntity("add", Raw(b"1")))
    await client.call("@counter@b", r.CallEntity("add", Raw(b"1")))
    await hub.until(lambda: ran)
    raw = await client.call("@counter@a", r.GetEntity())
    found = msgspec.json.decode(raw, type=r.EntitySnapshot)
    assert found.reason.startswith("quarantined: its code was running in 3 deaths")
    assert found.backlog == 1
    assert ran == ["entity"]


@in_hub
async def test_a_condemned_orchestrator_parks_whoever_has_a_turn(
    hub: Hub, client: HubClient
) -> None:
    shard = hub.owners[0].shard
    pardoned: list[Orchestrator] = []
    shard.turns.on_pardon = pardoned.append
    await client.start("poison", None, "before")
    await hub.until(lambda: ran == ["before"])
    forbid(shard, [Condemned("poison", None, 3), Condemned("works", "2", 3)])
    await client.raise_event("before", "go")
    await client.start("poison", None, "after")
    await client.start("works", 1, "other")
    assert await client.result("other") == "other"
    for each in ("before", "after"):
        found = await client.get(each)
        assert found is not None
        assert (found.completed_at, found.reason) == (None, DEADLY)
    assert "after" not in ran
    # The verdict is of the shard, not of the epoch.
    await reopen(hub)
    await hub.quiet()
    assert ran == []
    await client.call("before", r.Resume())
    await hub.quiet()
    assert pardoned == [Orchestrator("poison")]
    assert ran == []
    forbid(shard, [Condemned("works", "2", 3)])
    assert await client.result("before") == "fine"
    await client.raise_event("after", "go")
    assert await client.result("after") == "fine"


@in_hub
async def test_a_host_that_knows_of_no_verdict_runs_what_was_parked(
    hub: Hub, client: HubClient
) -> None:
    shard = hub.owners[0].shard
    forbid(shard, [Condemned("poison", None, 3)])
    await client.start("poison", None, "held")
    await hub.quiet()
    await pass_time(5)  # it is in the store, as parked
    assert ran == []
    shard.turns.condemned = set()
    await reopen(hub)
    await client.raise_event("held", "go")
    assert await client.result("held") == "fine"


# -- activities in threads -------------------------------------------------------------------------

threads = App()
running: list[str] = []
go = threading.Event()


@threads.activity
def job(text: str) -> str:
    running.append(text)
    go.wait(10)
    return text


class Asker:
    def __init__(self) -> None:
        self.ended: list[str] = []

    def activity_ended(self, run: RunActivity, outcome: Raw | h.Failure) -> None:
        self.ended.append(run.instance_id)


@pytest.mark.parametrize("suspected", [False, True])
def test_suspects_in_threads_run_one_at_a_time(suspected: bool) -> None:
    from shardrt.core.effects import RunActivity  # noqa: PLC0415

    @in_loop
    async def main() -> None:
        running.clear()
        go.clear()
        pool, asker = ActivityPool(threads, Settings(), host_id="h", shard=0), Asker()
        runs = [RunActivity(f"i{n}", "x", 0, 1, "job", Raw(b'"%d"' % n)) for n in range(3)]
        if suspected:
            pool.suspects = {(f"i{n}", "x", 0) for n in (0, 1)}
        for run in runs:
            pool.start(asker, run)
        try:
            wanted = {"0", "2"} if suspected else {"0", "1", "2"}
            await eventually(lambda: set(running) == wanted)
        finally:
            go.set()
        await eventually(lambda: len(asker.ended) == 3)
        assert set(running) == {"0", "1", "2"}
        await pool.close()

    main()
