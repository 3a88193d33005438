"""Several versions side by side, and patches within one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import PatchMarked, TaskScheduled
from shardrt.errors import OrchestratorNotRegistered
from shardrt.orchestration.app import App
from shardrt.orchestration.definitions import age_of
from shardrt.orchestration.executor import Executor
from tests.orchestration.harness import Instance, continued, failure_in, reason_of, result_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.core.work import Step
    from shardrt.orchestration.context import OrchestrationContext

    Body = Callable[[OrchestrationContext], Awaitable[Any]]


def executor_of(body: Body, version: str | None = None) -> Executor:
    app = App()
    app.orchestrator(name="flow", version=version)(body)  # type: ignore[type-var]
    return Executor(app)


def started(body: Body) -> Instance:
    instance = Instance(App(), "flow", executor=executor_of(body))
    instance.run()
    return instance


def deploy(instance: Instance, body: Body) -> None:
    instance.executor = executor_of(body)


async def before(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("old")
    return str(await ctx.call_activity("ship"))


async def patched(ctx: OrchestrationContext) -> str:
    if ctx.patched("tax"):
        await ctx.call_activity("new")
    else:
        await ctx.call_activity("old")
    return str(await ctx.call_activity("ship"))


async def deprecated(ctx: OrchestrationContext) -> str:
    ctx.deprecate_patch("tax")
    await ctx.call_activity("new")
    return str(await ctx.call_activity("ship"))


async def after(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("new")
    return str(await ctx.call_activity("ship"))


# -- versions ------------------------------------------------------------------------------


def test_versions_are_ordered_by_their_numbers():
    order = [None, "0.9", "1", "1.2", "1.10", "2-beta", "2", "2.0.1", "10"]
    assert sorted(order, key=age_of) == [*order[:5], "2", "2-beta", *order[7:]]


def test_a_start_means_the_newest_and_an_instance_its_own():
    app = App()
    for version in ("10", None, "9"):
        app.orchestrator(name="flow", version=version)(before)
    assert app.find_orchestrator("flow").version == "10"
    assert app.orchestrator_of("flow", None).version is None
    with pytest.raises(OrchestratorNotRegistered, match="'flow' version '8' is not registered"):
        app.orchestrator_of("flow", "8")


def test_an_instance_whose_version_is_gone_is_parked_and_goes_on_when_it_is_back():
    instance = Instance(App(), "flow", executor=executor_of(before, "1"), version="1")
    instance.run()
    instance.executor = executor_of(after, "2")
    reason = reason_of(instance.complete(1))
    assert reason == "orchestrator 'flow' version '1' is not registered; there is version '2'"
    instance.executor = executor_of(before, "1")
    instance.complete(1)
    assert result_of(instance.complete(2, "sent")) == "sent"


def test_an_instance_without_a_version_does_not_run_on_one_that_has():
    instance = started(before)
    instance.executor = executor_of(before, "1")
    reason = reason_of(instance.complete(1))
    assert reason == (
        "orchestrator 'flow' without a version is not registered; there is version '1'"
    )


def test_a_child_is_started_with_the_newest_version():
    app = App()
    app.orchestrator(name="kid", version="1")(before)
    app.orchestrator(name="kid", version="2")(after)

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator("kid")

    (action,) = Instance(app, "parent").run().actions
    assert getattr(action, "version", None) == "2"


def test_the_next_execution_can_be_of_another_version():
    async def eternal(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new(1, version="2")

    assert continued(Instance(App(), "flow", executor=executor_of(eternal)).run()).version == "2"

    async def wrong(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new(1, version=2)  # type: ignore[arg-type]

    failure = failure_in(Instance(App(), "flow", executor=executor_of(wrong)).run())
    assert failure.message == "a version is a text, not 2"


# -- patches -------------------------------------------------------------------------------


def names(step: Step) -> list[str]:
    return [f"{type(each).__name__} {getattr(each, 'name', '')}" for each in step.actions]


def finish(instance: Instance) -> Any:
    """Complete both calls, rebuilding the code before each."""
    instance.run(instance.completed(1), replay=True)
    return result_of(instance.run(instance.completed(2, "sent"), replay=True))


def test_a_new_execution_takes_the_new_way_and_says_so():
    instance = Instance(App(), "flow", executor=executor_of(patched))
    step = instance.run()
    assert names(step) == ["PatchMarked tax", "TaskScheduled new"]
    assert step.actions[1] == TaskScheduled(1, "new", step.actions[1].input)  # type: ignore[union-attr]
    assert finish(instance) == "sent"


def test_an_old_execution_stays_on_the_old_way():
    instance = started(before)
    deploy(instance, patched)
    assert finish(instance) == "sent"
    assert not any(isinstance(event, PatchMarked) for event in instance.history)


def test_an_answer_once_given_stays():
    async def flow(ctx: OrchestrationContext) -> list[bool]:
        answers = [] if plain else [ctx.patched("late")]
        await ctx.wait_for_event("go")
        return [*answers, ctx.patched("late")]

    plain = True
    instance = started(flow)
    plain = False
    assert result_of(instance.raise_event("go")) == [True]
    instance = started(flow)
    step = instance.run(instance.raised("go"), replay=True)
    assert (result_of(step), names(step)) == ([True, True], [])


def test_what_an_old_execution_was_told_holds_for_its_later_calls():
    async def old(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("go")

    async def new(ctx: OrchestrationContext) -> list[bool]:
        first = ctx.patched("tax")
        await ctx.wait_for_event("go")
        return [first, ctx.patched("tax")]

    instance = started(old)
    deploy(instance, new)
    step = instance.raise_event("go")
    assert (result_of(step), step.actions) == ([False, False], ())


def test_a_patch_that_comes_after_where_an_old_execution_is_applies_to_it():
    async def old(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("go")

    async def new(ctx: OrchestrationContext) -> bool:
        await ctx.wait_for_event("go")
        return ctx.patched("tax")

    instance = started(old)
    deploy(instance, new)
    step = instance.raise_event("go")
    assert (result_of(step), names(step)) == (True, ["PatchMarked tax"])


@pytest.mark.parametrize("recorded_by", [patched, deprecated])
@pytest.mark.parametrize("replayed_by", [patched, deprecated])
def test_stages_next_to_each_other_fit(recorded_by: Body, replayed_by: Body):
    instance = started(recorded_by)
    deploy(instance, replayed_by)
    assert finish(instance) == "sent"


@pytest.mark.parametrize("replayed_by", [deprecated, after])
def test_the_last_stage_fits_what_the_one_before_recorded(replayed_by: Body):
    instance = started(deprecated)
    deploy(instance, after)
    assert finish(instance) == "sent"
    instance = started(after)
    deploy(instance, replayed_by)
    assert finish(instance) == "sent"


def test_a_deprecated_marker_at_the_end_of_a_turn_may_be_missing():
    async def marking(ctx: OrchestrationContext) -> str:
        ctx.deprecate_patch("a")
        ctx.deprecate_patch("b")
        ctx.deprecate_patch("b")
        await ctx.wait_for_event("go")
        return "done"

    async def plain(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_event("go")
        return "done"

    instance = started(marking)
    deploy(instance, plain)
    assert result_of(instance.raise_event("go")) == "done"


def test_a_patch_that_is_removed_too_early_parks_the_instance():
    instance = started(patched)
    deploy(instance, after)
    assert "history says PatchMarked 'tax', the code asked for TaskScheduled #1 'new'" in (
        reason_of(instance.complete(1))
    )


def test_a_patch_is_called_by_a_text():
    async def wrong(ctx: OrchestrationContext) -> None:
        ctx.patched(1)  # type: ignore[arg-type]

    failure = failure_in(Instance(App(), "flow", executor=executor_of(wrong)).run())
    assert failure.message == "the name of a patch is a text, not 1"


def test_a_dropped_execution_is_told_nothing():
    told: list[bool] = []

    async def flow(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("go")
        finally:
            told.append(ctx.patched("tax"))

    instance = started(flow)
    assert instance.executor.drop("i-1")
    assert told == []
