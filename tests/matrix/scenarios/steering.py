"""Steering instances from outside: suspend, terminate, restart, rewind, delay, find, purge."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from shardrt import App, OrchestrationContext
from shardrt.errors import (
    InstanceExists,
    InstanceNotFinished,
    OrchestrationFailed,
    OrchestrationTerminated,
)
from tests.matrix.stage import Stage, note, scenario, time_of

app = App()


@app.activity
async def jot(order: tuple[str, str]) -> int:
    return note(*order)


@app.activity
def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


@app.orchestrator
async def collect(ctx: OrchestrationContext, count: int) -> list[int]:
    seen: list[int] = []
    while len(seen) < count:
        seen.append(await ctx.wait_for_event("n", int))
        ctx.set_custom_status(seen)
    return seen


@scenario()
async def suspend_keeps_events_in_order(stage: Stage) -> None:
    handle = await stage.client.start(collect, 5, instance_id=stage.id())
    for n in (0, 1):
        await handle.raise_event("n", n)
    await stage.shows([0, 1])
    await handle.suspend("lunch")
    for n in (2, 3):
        await handle.raise_event("n", n)
    await stage.middle()
    await stage.client.raise_event(stage.id(), "n", 4)
    status = await stage.status()
    assert (status.status, status.reason) == ("Suspended", "lunch")
    assert status.custom_status == [0, 1]
    await stage.client.resume(stage.id())
    assert await stage.result() == [0, 1, 2, 3, 4]


@app.orchestrator
async def family(ctx: OrchestrationContext, depth: int) -> None:
    if depth:
        await ctx.call_sub_orchestrator(family, depth - 1, instance_id=f"{ctx.instance_id}c")
    await ctx.wait_for_event("never")


@scenario()
async def terminate_reaches_descendants_if_asked_to(stage: Stage) -> None:
    for tree in ("before", "after", "root"):
        await stage.client.start(family, 2, instance_id=stage.id(tree))

    async def is_born() -> bool:
        leaves = [await stage.client.get(stage.id(f"{t}cc")) for t in ("before", "after", "root")]
        return None not in leaves

    await stage.until(is_born)
    await stage.client.terminate(stage.id("before"), "enough")
    await stage.middle()
    await stage.client.terminate(stage.id("after"), "enough")
    await stage.client.terminate(stage.id("root"), recursive=False)
    for each in ("before", "beforec", "beforecc", "after", "afterc", "aftercc", "root"):
        with pytest.raises(OrchestrationTerminated):
            await stage.result(each)
    assert (await stage.status("after")).reason == "enough"
    assert (await stage.status("rootc")).status == "Running"
    assert (await stage.status("rootcc")).status == "Running"


@app.orchestrator
async def greet(ctx: OrchestrationContext, name: str) -> str:
    return f"{await ctx.wait_for_event('word', str)} {name}"


@scenario()
async def restart_begins_anew(stage: Stage) -> None:
    handle = await stage.client.start(greet, "Ada", instance_id=stage.id(), tags={"a": "b"})
    await handle.raise_event("word", "hello")
    assert await stage.result() == "hello Ada"
    first = await stage.status()
    await handle.restart()
    await stage.middle()
    again = await stage.status()
    assert again.status == "Running"
    assert (again.input, again.tags) == ("Ada", {"a": "b"})
    assert again.execution_id != first.execution_id
    await stage.client.raise_event(stage.id(), "word", "bye")
    assert await stage.result() == "bye Ada"


@app.orchestrator
async def deliver(ctx: OrchestrationContext, directory: str) -> str:
    await ctx.call_activity(jot, (f"{directory}/notes", "packed"))
    return await ctx.call_activity(read, f"{directory}/letter")


@scenario()
async def rewind_repeats_what_failed_only(stage: Stage) -> None:
    await stage.client.start(deliver, str(stage.directory), instance_id=stage.id())
    with pytest.raises(OrchestrationFailed, match="letter"):
        await stage.result()
    await stage.middle()
    stage.write("letter", "Dear Ada")
    await stage.client.rewind(stage.id())
    assert await stage.result() == "Dear Ada"
    assert stage.notes() == ["packed"]


@app.orchestrator
async def when(ctx: OrchestrationContext) -> str:
    return ctx.current_utc_datetime.isoformat()


@scenario()
async def start_at_is_kept(stage: Stage) -> None:
    await stage.client.start(when, instance_id=stage.id(), start_at=timedelta(seconds=3))
    status = await stage.status()
    assert status.status == "Pending"
    await stage.middle()
    began = time_of(await stage.result())
    assert began - status.created_at > timedelta(seconds=2.5)


@scenario()
async def on_conflict_decides_about_a_taken_id(stage: Stage) -> None:
    await stage.client.start(greet, "one", instance_id=stage.id())
    await stage.middle()
    client = stage.client
    with pytest.raises(InstanceExists):
        await client.start(greet, "two", instance_id=stage.id())
    same = await client.start(greet, "two", instance_id=stage.id(), on_conflict="return")
    with pytest.raises(InstanceExists):
        await client.start(greet, "two", instance_id=stage.id(), on_conflict="restart")
    await same.raise_event("word", "hello")
    assert await stage.result() == "hello one"
    await client.start(greet, "two", instance_id=stage.id(), on_conflict="restart")
    await client.raise_event(stage.id(), "word", "hello")
    assert await stage.result() == "hello two"


@scenario()
async def lists_find_by_tags_name_status_and_id(stage: Stage) -> None:
    client = stage.client
    for number, team in enumerate(("red", "red", "blue")):
        tags = {"team": team, "of": stage.name}
        await client.start(greet, "x", instance_id=stage.id(str(number)), tags=tags)
    await client.raise_event(stage.id("0"), "word", "hello")
    assert await stage.result("0") == "hello x"
    await stage.middle()

    async def finds(*numbers: str, **conditions: object) -> None:
        async def found() -> bool:
            listed = [each.instance_id async for each in stage.client.list(**conditions)]  # type: ignore[arg-type]
            return sorted(listed) == [stage.id(number) for number in numbers]

        await stage.until(found)

    of = {"of": stage.name}
    await finds("0", "1", "2", tags=of)
    await finds("0", "1", tags={"team": "red", **of})
    await finds("0", tags=of, status="completed")
    await finds("1", "2", tags=of, status="running", name="greet")
    await finds(tags=of, name="collect")
    await finds("2", id_prefix=stage.id("2"))
    created = (await stage.status("1")).created_at
    await finds("1", "2", tags=of, created_from=created)
    assert (await stage.client.count(tags=of)) == {"Completed": 1, "Running": 2}


@scenario()
async def purges_delete_what_has_ended_and_nothing_else(stage: Stage) -> None:
    tags = {"purge": stage.name}
    for number in range(4):
        handle = await stage.client.start(greet, "x", instance_id=stage.id(str(number)), tags=tags)
        if number < 3:
            await handle.raise_event("word", "hello")
            await handle.result()
    assert await stage.client.purge(stage.id("0")) == 1
    await stage.middle()
    assert await stage.client.get(stage.id("0")) is None
    with pytest.raises(InstanceNotFinished):
        await stage.client.purge(stage.id("3"))
    purged: list[int] = []

    async def two() -> bool:
        purged.append(await stage.client.purge_where(tags=tags, status="completed"))
        return sum(purged) == 2

    await stage.until(two)
    assert await stage.client.get(stage.id("1")) is None
    assert (await stage.status("3")).status == "Running"


mended: set[str] = set()
"""Directories of scenarios whose code has been put right in this process."""


@app.activity
async def mend(directory: str) -> None:
    mended.add(directory)


@app.orchestrator
async def repair(ctx: OrchestrationContext, directory: str) -> None:
    await ctx.call_activity(mend, directory)


def look_at_plan(directory: str) -> str:
    """What an orchestrator must not do."""
    return Path(directory, "plan").read_text(encoding="utf-8")


@app.orchestrator
async def fragile(ctx: OrchestrationContext, directory: str) -> str:
    await ctx.call_activity(jot, (f"{directory}/notes", "first"))
    await ctx.wait_for_event("go")
    if directory not in mended:
        look_at_plan(directory)
    await ctx.call_activity(jot, (f"{directory}/notes", "second"))
    return "done"


@scenario()
async def parked_code_goes_on_once_it_fits(stage: Stage) -> None:
    # The ids ask for the same partition, so for the same process.
    await stage.client.start(fragile, str(stage.directory), instance_id=stage.id("f!3"))
    await stage.client.raise_event(stage.id("f!3"), "go")

    async def is_parked() -> bool:
        explanation = await stage.client.explain(stage.id("f!3"))
        return explanation.awaited[0].kind == "code"

    await stage.until(is_parked)
    assert "steering.py" in (await stage.status("f!3")).reason
    await stage.middle()
    await stage.until(is_parked)
    await stage.client.start(repair, str(stage.directory), instance_id=stage.id("r!3"))
    await stage.result("r!3")
    await stage.client.resume(stage.id("f!3"))
    assert await stage.result("f!3") == "done"
    assert stage.notes() == ["first", "second"]


@app.activity
async def never_ends() -> None:
    await asyncio.Event().wait()


@app.orchestrator
async def waits_for_much(ctx: OrchestrationContext) -> None:
    child = f"{ctx.instance_id}c"
    await asyncio.gather(
        ctx.call_activity(never_ends),
        ctx.create_timer(timedelta(days=1)),
        ctx.call_sub_orchestrator(family, 0, instance_id=child),
        ctx.wait_for_event("word"),
    )


@scenario()
async def explain_names_all_that_is_awaited(stage: Stage) -> None:
    await stage.client.start(waits_for_much, instance_id=stage.id())

    async def is_explained() -> bool:
        explanation = await stage.client.explain(stage.id())
        awaited = {each.kind: each for each in explanation.awaited}
        return (
            set(awaited) == {"activity", "timer", "child", "event"}
            and awaited["activity"].name == "never_ends"
            and awaited["timer"].due is not None
            and awaited["child"].status == "Running"
        )

    await stage.until(is_explained)
    await stage.middle()
    await stage.until(is_explained)
    await stage.client.terminate(stage.id())


@app.orchestrator(name="matrix_versions", version="1")
async def version_1(ctx: OrchestrationContext) -> str:
    await ctx.wait_for_event("go")
    return f"{ctx.version} old"


@app.orchestrator(name="matrix_versions", version="2")
async def version_2(ctx: OrchestrationContext) -> str:
    return f"{ctx.version} new"


@scenario()
async def versions_stay_with_their_instances(stage: Stage) -> None:
    await stage.client.start("matrix_versions", instance_id=stage.id("old"), version="1")
    await stage.middle()
    await stage.client.raise_event(stage.id("old"), "go")
    assert await stage.result("old") == "1 old"
    await stage.client.start("matrix_versions", instance_id=stage.id("new"))
    assert await stage.result("new") == "2 new"
