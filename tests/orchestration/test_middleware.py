"""Middleware inside of orchestrations and entities, and how it is registered."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core import entity as en
from shardrt.core.history import Parent, SubOrchestrationInstanceCreated, TaskScheduled
from shardrt.errors import ConfigInvalid, SchedulingVetoed
from shardrt.orchestration.app import App
from shardrt.orchestration.entity_executor import EntityExecutor
from shardrt.orchestration.middleware import ExecutionKind, SchedulingSource
from tests.orchestration.harness import START, Instance, failure_in, raw, reason_of, result_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.orchestration.context import OrchestrationContext
    from shardrt.orchestration.entity_context import EntityContext
    from shardrt.orchestration.middleware import CallNext, ExecutionInfo, SchedulingInfo

SOURCES = ["activity", "child", "timer", "event"]


class Denied(Exception):
    """What a middleware of these tests vetoes with."""


def app_of(body: Callable[[OrchestrationContext], Any]) -> App:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, given: Any = None) -> object:
        return await body(ctx)

    return app


# -- registering -------------------------------------------------------------------------------


def test_what_is_no_middleware_is_refused():
    app = App()

    async def one(info: ExecutionInfo) -> None: ...

    async def good(info: ExecutionInfo, call_next: CallNext) -> Any: ...

    refused: list[tuple[Any, dict[str, Any], str]] = [
        (lambda info, call_next: None, {}, "is an async def"),
        (3, {}, "is an async def"),
        (one, {}, "must take an info and call_next"),
        (good, {"kinds": ["acitvity"]}, "there is activity, orchestration, entity"),
        (good, {"kinds": []}, "middleware for nothing"),
    ]
    for fn, options, problem in refused:
        with pytest.raises(ConfigInvalid, match=problem):
            app.execution_middleware(**options)(fn)
    app.execution_middleware(good)
    with pytest.raises(ConfigInvalid, match="registered twice"):
        app.execution_middleware(kinds="entity")(good)
    with pytest.raises(ConfigInvalid, match="there is start, activity"):
        app.scheduling_middleware(sources=["lock"])


def test_bare_ones_are_for_what_is_not_replayed():
    app = App()

    @app.execution_middleware
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any: ...

    @app.scheduling_middleware
    async def before(info: SchedulingInfo, call_next: CallNext) -> Any: ...

    assert [kind for kind in ExecutionKind if app.executing(kind)] == ["activity"]
    assert [source for source in SchedulingSource if app.scheduling(source)] == ["start"]


def test_an_object_with_an_async_call_is_one():
    class Around:
        async def __call__(self, info: ExecutionInfo, call_next: CallNext) -> Any: ...

    app = App()
    fn = app.execution_middleware(Around())
    assert app.executing(ExecutionKind.ACTIVITY) == (fn,)


def test_included_middleware_comes_inside_and_once():
    outer, inner = App(), App()
    names = {app: app.execution_middleware(_named()) for app in (outer, inner)}
    outer.include(inner)
    outer.include(inner)
    assert outer.executing(ExecutionKind.ACTIVITY) == (names[outer], names[inner])


def _named() -> Any:
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any: ...

    return around


# -- around orchestrations ---------------------------------------------------------------------


def test_it_is_around_the_whole_execution_and_replayed_with_it():
    log: list[str] = []

    async def body(ctx: OrchestrationContext) -> str:
        first = await ctx.call_activity("a", 1)
        return f"{first} {await ctx.call_activity('b')}"

    app = app_of(body)

    def register(name: str) -> None:
        @app.execution_middleware(kinds=["orchestration"])
        async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
            log.append(f"{name} {info.kind} {info.name} {info.instance_id} {info.input}")
            result = await call_next()
            log.append(f"{name} after")
            return f"{name}({result})"

    register("outer")
    register("inner")
    instance = Instance(app, "flow", {"n": 1})
    instance.run()
    began = [f"{name} orchestration flow i-1 {{'n': 1}}" for name in ("outer", "inner")]
    assert log == began
    instance.run(instance.completed(1, "x"), replay=True)
    step = instance.run(instance.completed(2, "y"), replay=True)
    assert result_of(step) == "outer(inner(x y))"
    assert log == [*began * 3, "inner after", "outer after"]


def test_it_may_answer_in_place_of_the_body():
    async def body(ctx: OrchestrationContext) -> None:
        raise AssertionError

    app = app_of(body)

    @app.execution_middleware(kinds=["orchestration"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> str:
        return "closed today"

    assert result_of(Instance(app, "flow").run()) == "closed today"


def test_it_sees_what_the_body_raises_also_if_the_input_does_not_fit():
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, number: int) -> None:
        raise OSError("disk")

    @app.execution_middleware(kinds=["orchestration"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except Exception as error:
            raise Denied("wrapped") from error

    for given, cause in ((1, "OSError"), ("x", "InputInvalid")):
        failure = failure_in(Instance(app, "flow", given).run())
        assert (failure.type, failure.message) == ("Denied", "wrapped")
        assert failure.cause is not None
        assert failure.cause.type == cause


def test_it_may_ask_for_things_itself():
    async def body(ctx: OrchestrationContext) -> str:
        return "done"

    app = app_of(body)

    @app.execution_middleware(kinds=["orchestration"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        result = await call_next()
        context: Any = info.context
        return [result, await context.call_activity("audit")]

    instance = Instance(app, "flow")
    assert [type(each) for each in instance.run().actions] == [TaskScheduled]
    step = instance.run(instance.completed(1, "noted"), replay=True)
    assert result_of(step) == ["done", "noted"]


def test_the_guard_watches_it():
    async def body(ctx: OrchestrationContext) -> None: ...

    app = app_of(body)

    @app.execution_middleware(kinds=["orchestration"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        began = time.monotonic()
        await call_next()
        return time.monotonic() - began

    assert "time.monotonic()" in reason_of(Instance(app, "flow").run())


def test_it_cannot_run_the_body_twice():
    async def body(ctx: OrchestrationContext) -> int:
        return 1

    app = app_of(body)

    @app.execution_middleware(kinds=["orchestration"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        return [await call_next(), await call_next()]

    failure = failure_in(Instance(app, "flow").run())
    assert failure.message == "call_next was called before; use a retry policy to try again"


def test_built_in_orchestrators_are_left_alone():
    app = App()

    @app.execution_middleware(kinds=["orchestration"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        raise Denied

    @app.scheduling_middleware(sources=SOURCES)
    async def before(info: SchedulingInfo, call_next: CallNext) -> Any:
        raise Denied

    schedule = {"schedule": {"orchestrator": "flow", "every": 60_000_000}}
    step = Instance(app, "shardrt.schedule", schedule).run()
    assert [type(each).__name__ for each in step.actions] == ["TimerCreated"]


# -- before what is scheduled --------------------------------------------------------------------


async def asks(ctx: OrchestrationContext) -> list[str]:
    """Ask for everything there is; return what of it was denied."""
    denied = []
    asked: dict[str, Callable[[], Any]] = {
        "activity": lambda: ctx.call_activity("a", 1),
        "child": lambda: ctx.call_sub_orchestrator("c", 2, instance_id="kid"),
        "timer": lambda: ctx.create_timer(timedelta(seconds=5)),
        "event": lambda: ctx.send_event("other", "ping", 3),
    }
    for name, ask in asked.items():
        try:
            ask()
        except Denied:
            denied.append(name)
    await ctx.wait_for_event("go")
    return denied


@pytest.mark.parametrize("source", SOURCES)
def test_a_veto_is_raised_by_the_call_and_nothing_of_it_is_recorded(source: str):
    app = app_of(asks)

    @app.scheduling_middleware(sources=SOURCES)
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        await call_next()
        if info.source == source:
            raise Denied

    instance = Instance(app, "flow")
    actions = instance.run().actions
    missing = {
        "activity": "TaskScheduled",
        "child": "SubOrchestrationInstanceCreated",
        "timer": "TimerCreated",
        "event": "EventSent",
    }
    assert {type(each).__name__ for each in actions} == set(missing.values()) - {missing[source]}
    step = instance.run(instance.raised("go"), replay=True)
    assert result_of(step) == [source]


def test_it_sees_what_is_asked_for_and_by_whom():
    app = app_of(asks)
    seen: list[tuple[str, str, str, Any]] = []
    due = []

    @app.scheduling_middleware(sources=SOURCES)
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        assert info.context is not None
        seen.append((info.source, info.name, info.instance_id, info.input))
        if info.at is not None:
            due.append(info.at - info.context.current_utc_datetime)
        await call_next()

    Instance(app, "flow").run()
    assert seen == [
        ("activity", "a", "i-1", 1),
        ("child", "c", "kid", 2),
        ("timer", "", "i-1", None),
        ("event", "ping", "other", 3),
    ]
    assert due == [timedelta(seconds=5)]


def test_sleeps_and_timeouts_are_timers():
    async def body(ctx: OrchestrationContext) -> list[str]:
        caught = []
        try:
            await asyncio.sleep(5)
        except Denied:
            caught.append("sleep")
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
        except Denied:
            caught.append("timeout")
        try:
            await ctx.wait_for_event("e", timeout=5)
        except Denied:
            caught.append("event")
        # Who gave up waiting does not take the event from who waits now.
        return [*caught, await ctx.wait_for_event("e", str)]

    app = app_of(body)

    @app.scheduling_middleware(sources="timer")
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        raise Denied

    instance = Instance(app, "flow")
    assert instance.run().actions == ()
    step = instance.run(instance.raised("e", "data"))
    assert result_of(step) == ["sleep", "timeout", "event", "data"]


def test_a_child_has_the_id_that_was_told():
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator("c")

    app = app_of(body)
    told = []

    @app.scheduling_middleware(sources=["child"])
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        told.append(info.instance_id)
        await call_next()

    (created,) = Instance(app, "flow").run().actions
    assert isinstance(created, SubOrchestrationInstanceCreated)
    assert told == [created.instance_id]


@pytest.mark.parametrize(
    ("waits", "problem"), [(True, "the middleware waits"), (False, "did not let it pass")]
)
def test_who_waits_or_says_nothing_lets_nothing_pass(waits: bool, problem: str):
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")

    app = app_of(body)

    @app.scheduling_middleware(sources=["activity"])
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        if waits:
            await call_next()
            assert info.context is not None
            await info.context.wait_for_event("never")

    step = Instance(app, "flow").run()
    assert failure_in(step).type == SchedulingVetoed.__name__
    assert problem in failure_in(step).message
    assert step.actions == ()


def test_cleanup_of_what_is_dropped_asks_nobody():
    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("never")
        finally:
            await ctx.call_activity("cleanup")

    app = app_of(body)
    asked = []

    @app.scheduling_middleware(sources=["activity"])
    async def before(info: SchedulingInfo, call_next: CallNext) -> None:
        asked.append(info.name)
        await call_next()

    instance = Instance(app, "flow")
    instance.run()
    instance.executor.drop("i-1")
    assert asked == []


# -- around operations of entities -------------------------------------------------------------


def perform(app: App, *operations: tuple[str, Any]) -> en.EntityStep:
    caller = Parent("i", "x", 1)
    asked = tuple(en.Operation(name, raw(given), caller) for name, given in operations)
    work = en.EntityWork("@tally@k", "t", START, 0, "tally", (), asked)
    return EntityExecutor(app).run(work)


def an_app_with_a_tally() -> App:
    app = App()

    @app.entity
    class Tally:
        count: int = 0

        def add(self, ctx: EntityContext, n: int) -> int:
            self.count += n
            ctx.signal("@log@all", "note", n)
            if n < 0:
                raise ValueError("negative")
            return self.count

    return app


def test_operations_are_wrapped_and_a_failed_one_is_undone_even_if_it_is_hidden():
    app = an_app_with_a_tally()
    seen = []

    @app.execution_middleware(kinds=["entity"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        seen.append((info.kind, info.name, info.instance_id, info.operation, info.input))
        if info.input == 0:
            return "nothing to do"
        try:
            return await call_next()
        except ValueError:
            return "hidden"

    step = perform(app, ("add", 3), ("add", -2), ("add", 0), ("add", 4))
    results = [bytes(each.result) for each in step.results]
    assert results == [b"3", b'"hidden"', b'"nothing to do"', b"7"]
    assert [bytes(each) for each in step.state or ()] == [b'{"count":7}']
    assert [bytes(each.input) for each in step.outputs] == [b"3", b"4"]
    assert seen[0] == ("entity", "tally", "@tally@k", "add", 3)


def test_an_operation_after_which_middleware_fails_is_undone():
    app = an_app_with_a_tally()

    @app.execution_middleware(kinds=["entity"])
    async def around(info: ExecutionInfo, call_next: CallNext) -> Any:
        await call_next()
        raise Denied

    step = perform(app, ("add", 3))
    assert step.results[0].failure is not None
    assert step.results[0].failure.type == "Denied"
    assert (step.state, step.outputs) == (None, ())
