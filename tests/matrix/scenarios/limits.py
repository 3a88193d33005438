"""Limits of the whole hub: who is over one waits in line, also through a crash."""

from __future__ import annotations

from shardrt import App, Limit, OrchestrationContext
from tests.matrix.stage import Stage, note, passed, scenario

app = App()


@app.activity(limit=Limit("matrix", concurrency=1), limit_key=lambda order: order[0])
async def goes_in(order: tuple[str, str, str]) -> str:
    _, directory, name = order
    note(f"{directory}/notes", f"in {name}")
    await passed(f"{directory}/{name}")
    note(f"{directory}/notes", f"out {name}")
    return name


@app.orchestrator
async def visits(ctx: OrchestrationContext, order: tuple[str, str, str]) -> str:
    return await ctx.call_activity(goes_in, order)


@scenario()
async def only_so_many_are_at_work(stage: Stage) -> None:
    async def is_in_line() -> bool:
        awaited = (await stage.client.explain(stage.id("b"))).awaited
        return any(each.status == "position 1 of 1, 1 at work" for each in awaited)

    for name in ("a", "b"):
        order = (stage.name, str(stage.directory), name)
        await stage.client.start(visits, order, instance_id=stage.id(name))
        await stage.noted("in a")
    await stage.until(is_in_line)
    await stage.middle()
    await stage.until(is_in_line)
    stage.open_gate("a")
    await stage.noted("in b")
    stage.open_gate("b")
    assert [await stage.result("a"), await stage.result("b")] == ["a", "b"]
    notes = stage.notes()
    assert "in b" not in notes[: notes.index("out a")]
    assert notes.count("out b") == 1
