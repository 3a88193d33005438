"""Children: their results, their failures, and retries of whole children."""

from __future__ import annotations

from shardrt import App, OrchestrationContext, RetryPolicy
from shardrt.errors import SubOrchestrationFailed
from tests.matrix.stage import Stage, note, passed, scenario

app = App()


@app.activity
async def third_time(directory: str) -> int:
    await passed(f"{directory}/gate")
    if (runs := note(f"{directory}/runs", "run")) < 3:
        raise ConnectionError(f"run {runs}")
    return runs


@app.orchestrator
async def unlucky_child(ctx: OrchestrationContext, directory: str) -> int:
    return await ctx.call_activity(third_time, directory)


@app.orchestrator
async def stubborn_parent(ctx: OrchestrationContext, directory: str) -> int:
    retry = RetryPolicy(max_attempts=3, first_interval=0.1)
    return await ctx.call_sub_orchestrator(unlucky_child, directory, retry=retry)


@scenario()
async def failed_children_are_tried_again(stage: Stage) -> None:
    await stage.client.start(stubborn_parent, str(stage.directory), instance_id=stage.id())
    await stage.middle()
    stage.open_gate()
    assert await stage.result() == 3


@app.orchestrator
async def asked_child(ctx: OrchestrationContext, of: str) -> str:
    answer = await ctx.wait_for_event("answer", str)
    if answer == "fail":
        raise LookupError(f"{of} has no answer")
    return f"{of} {ctx.parent_instance_id} {answer}"


@app.orchestrator
async def asking_parent(ctx: OrchestrationContext) -> list[str]:
    me = ctx.instance_id
    children = [
        ctx.call_sub_orchestrator(asked_child, name, instance_id=f"{me}.{name}")
        for name in ("good", "bad")
    ]
    answers: list[str] = []
    for each in children:
        try:
            answers.append(await each)
        except SubOrchestrationFailed as failed:
            answers.append(f"{failed.error_type}: {failed.message}")
    return answers


@scenario()
async def children_report_to_their_parents(stage: Stage) -> None:
    await stage.client.start(asking_parent, instance_id=stage.id())

    async def are_born() -> bool:
        born = [await stage.client.get(stage.id(of)) for of in ("good", "bad")]
        return None not in born

    await stage.until(are_born)
    await stage.client.raise_event(stage.id("bad"), "answer", "fail")
    await stage.is_in("Failed", "bad")
    await stage.middle()
    await stage.client.raise_event(stage.id("good"), "answer", "42")
    good, bad = await stage.result()
    assert good == f"good {stage.id()} 42"
    assert bad == "LookupError: bad has no answer"
