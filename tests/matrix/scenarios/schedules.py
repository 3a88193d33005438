"""Schedules: each due time starts one instance, by the policy of overlaps."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from tests.matrix.stage import Stage, scenario

if TYPE_CHECKING:
    from shardrt.orchestration.calendar import Overlap

app = App()


@app.orchestrator
async def short_job(ctx: OrchestrationContext) -> str:
    return "done"


@app.orchestrator
async def long_job(ctx: OrchestrationContext) -> str:
    await ctx.wait_for_event("go")
    return "done"


async def until_started(stage: Stage, count: int) -> None:
    async def is_so() -> bool:
        status = await stage.client.get_schedule(stage.id())
        return status is not None and status.started >= count

    await stage.until(is_so)


async def ids(stage: Stage) -> list[str]:
    prefix = f"{stage.id()}:"
    return [each.instance_id async for each in stage.client.list(id_prefix=prefix)]


@scenario()
async def cron_starts_once_per_due_time(stage: Stage) -> None:
    await stage.client.schedule(stage.id(), short_job, cron="* * * * * *", catch_up="all")
    await until_started(stage, 1)
    await stage.middle()
    await until_started(stage, 3)
    await stage.client.pause_schedule(stage.id())

    async def is_paused() -> bool:
        status = await stage.client.get_schedule(stage.id())
        return status is not None and status.paused

    await stage.until(is_paused)
    status = await stage.client.get_schedule(stage.id())
    assert status is not None

    async def all_are_listed() -> bool:
        return len(await ids(stage)) >= status.started

    await stage.until(all_are_listed)
    assert len(await ids(stage)) == status.started
    await stage.client.trigger_schedule(stage.id())
    await until_started(stage, status.started + 1)
    await stage.client.delete_schedule(stage.id())
    assert await stage.client.get_schedule(stage.id()) is None


async def skipped_while_one_ran(stage: Stage, overlap: Overlap) -> int:
    """Let a few due times go by while an instance runs; return how many the schedule skipped."""
    await stage.client.schedule(stage.id(), long_job, every=0.2, overlap=overlap)
    await until_started(stage, 1)
    status = await stage.client.get_schedule(stage.id())
    assert status is not None
    first = status.last_instance_id
    assert first is not None
    await stage.middle()
    pause = timedelta(seconds=0.7)
    await stage.client.start(short_job, instance_id=stage.id("pause"), start_at=pause)
    await stage.result("pause")
    status = await stage.client.get_schedule(stage.id())
    assert status is not None
    assert status.started == 1
    await stage.client.raise_event(first, "go")
    await until_started(stage, 2)
    status = await stage.client.get_schedule(stage.id())
    assert status is not None
    await stage.client.delete_schedule(stage.id())
    return status.skipped


@scenario()
async def intervals_skip_while_one_runs(stage: Stage) -> None:
    assert await skipped_while_one_ran(stage, "skip") >= 2


@scenario()
async def intervals_queue_behind_what_runs(stage: Stage) -> None:
    assert await skipped_while_one_ran(stage, "queue") == 0


@scenario()
async def intervals_replace_what_runs(stage: Stage) -> None:
    await stage.client.schedule(stage.id(), long_job, every=0.5, overlap="replace")
    await until_started(stage, 1)
    await stage.middle()
    await until_started(stage, 3)
    await stage.client.delete_schedule(stage.id())

    async def all_but_the_last_are_terminated() -> bool:
        found = stage.client.list(id_prefix=f"{stage.id()}:")
        states = Counter([str(each.status) async for each in found])
        # None runs if the schedule was deleted after it had ended one, before it began another.
        return states["Terminated"] >= 2 and states.total() - states["Terminated"] <= 1

    await stage.until(all_but_the_last_are_terminated)
