"""Dropping a resident execution: its code must not be able to act as if it had ended."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.orchestration import execution
from shardrt.orchestration.app import App
from shardrt.orchestration.executor import Executor
from tests.orchestration.harness import Instance, failure_in, result_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.orchestration.context import OrchestrationContext


def waiting(body: Callable[[OrchestrationContext], Awaitable[Any]]) -> Instance:
    """Start a body and run its first turn, which must not end it."""
    app = App()
    app.orchestrator(name="body")(body)  # type: ignore[type-var]
    instance = Instance(app, "body")
    assert instance.run().outcome is None
    return instance


def drop(instance: Instance) -> None:
    assert instance.executor.drop(instance.instance_id)
    gc.collect()


def release() -> None:
    """Let go of the coroutines that were given up; by now they can be closed."""
    for coroutine in execution._unclosable:
        coroutine.close()
    execution._unclosable.clear()


def calls_of(ctx: OrchestrationContext) -> dict[str, Callable[[], Any]]:
    return {
        "activity": lambda: ctx.call_activity("clean up"),
        "child": lambda: ctx.call_sub_orchestrator("clean up"),
        "timer": lambda: ctx.create_timer(timedelta(1)),
        "sleep": lambda: asyncio.sleep(5),
        "event": lambda: ctx.wait_for_event("x", timeout=1),
        "send": lambda: ctx.send_event("other", "ended"),
        "status": lambda: ctx.set_custom_status("ended"),
        "continue": lambda: ctx.continue_as_new("ended"),
        "task": lambda: asyncio.create_task(asyncio.sleep(1)),
        "future": lambda: asyncio.get_running_loop().create_future(),
        "group": lambda: asyncio.gather(asyncio.sleep(1), ctx.call_activity("x")),
    }


CALLS = [
    "activity", "child", "timer", "sleep", "event", "send", "status", "continue", "task",
    "future", "group",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_cleanup_code_ends_at_its_first_durable_call(call: str):
    reached: list[str] = []

    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("go")
        finally:
            reached.append("finally")
            awaitable = calls_of(ctx)[call]()
            if awaitable is not None:
                await awaitable
            reached.append("after")

    instance = waiting(body)
    drop(instance)
    assert reached == ["finally"]
    step = instance.run(instance.raised("other"))  # nothing of it is in the replay
    assert (step.actions, step.outcome, step.custom_status) == ((), None, None)


def test_cleanup_code_cannot_reach_the_loop_of_the_host():
    loops: list[bool] = []

    async def body(ctx: OrchestrationContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await ctx.wait_for_event("go")
        finally:
            loops.append(asyncio.get_running_loop() is loop and loop.is_closed())
            await asyncio.sleep(0.001)

    async def host() -> None:
        drop(waiting(body))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(host())
    assert loops == [True]


def test_code_that_swallows_everything_gets_nothing_done():
    reached: list[str] = []

    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("a")
        except BaseException:  # noqa: BLE001
            reached.append("swallowed")
            try:
                await ctx.call_activity("b")
            except BaseException:  # noqa: BLE001
                reached.append("swallowed again")
        ctx.logger.warning("this is not said")

    instance = waiting(body)
    drop(instance)
    assert reached == ["swallowed", "swallowed again"]


def test_what_dropped_code_raises_is_only_noted(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)

    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("go")
        finally:
            raise ValueError("in cleanup")

    drop(waiting(body))
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "in cleanup" in caplog.text


def test_all_tasks_are_closed_and_nobody_complains(caplog: pytest.LogCaptureFixture):
    closed: list[str] = []

    async def work(ctx: OrchestrationContext, name: str) -> None:
        try:
            async with asyncio.timeout(60):
                await ctx.call_activity(name)
        finally:
            closed.append(name)

    async def body(ctx: OrchestrationContext) -> None:
        unawaited = [work(ctx, "never started") for _ in range(3)]
        loose = asyncio.create_task(work(ctx, "loose"))
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(work(ctx, name))
        await asyncio.gather(loose, *unawaited)

    drop(waiting(body))
    assert sorted(closed) == ["a", "b", "c", "loose"]
    assert caplog.records == []


def test_code_that_does_not_let_go_is_given_up(caplog: pytest.LogCaptureFixture):
    enough: list[bool] = []

    async def body(ctx: OrchestrationContext) -> None:
        while not enough:
            try:
                await ctx.call_activity("again")
            except BaseException:  # noqa: BLE001
                continue

    drop(waiting(body))
    assert "does not let go (" in caplog.text
    assert "test_drop.py" in caplog.text
    enough.append(True)
    release()


def test_sleeping_code_that_does_not_let_go_is_given_up_too(caplog: pytest.LogCaptureFixture):
    enough: list[bool] = []

    async def body(ctx: OrchestrationContext) -> None:
        while not enough:
            try:
                await asyncio.gather(asyncio.sleep(1), asyncio.create_task(asyncio.sleep(1)))
            except BaseException:  # noqa: BLE001
                continue

    drop(waiting(body))
    assert "does not let go (" in caplog.text
    enough.append(True)
    release()


def test_an_interrupt_while_dropping_goes_to_the_host():
    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("go")
        finally:
            raise KeyboardInterrupt

    instance = waiting(body)
    with pytest.raises(KeyboardInterrupt):
        instance.executor.drop("i-1")


def test_tasks_left_when_the_body_returns_are_closed_and_silent():
    reached: list[str] = []

    async def left(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("long")
        finally:
            reached.append("finally")
            await ctx.call_activity("clean up")
            reached.append("after")

    async def body(ctx: OrchestrationContext) -> str:
        _ = asyncio.create_task(left(ctx))  # noqa: RUF006
        await ctx.wait_for_event("go")
        _ = asyncio.create_task(left(ctx))  # noqa: RUF006
        _ = ctx.call_activity("kept")
        return "done"

    instance = waiting(body)
    step = instance.raise_event("go")
    assert result_of(step) == "done"
    assert [getattr(action, "name", None) for action in step.actions] == ["kept"]
    assert reached == ["finally"]
    assert len(instance.executor) == 0


def test_a_failed_body_closes_its_tasks_too():
    async def body(ctx: OrchestrationContext) -> None:
        _ = asyncio.create_task(asyncio.sleep(9))  # noqa: RUF006
        await ctx.wait_for_event("go")
        raise LookupError("x")

    instance = waiting(body)
    assert failure_in(instance.raise_event("go")).type == "LookupError"


def test_exceptions_of_tasks_nobody_asked_for_are_logged_while_live(
    caplog: pytest.LogCaptureFixture,
):
    async def bad() -> None:
        raise ValueError("nobody asked")

    async def body(ctx: OrchestrationContext) -> None:
        task = asyncio.create_task(bad())
        for _ in range(20):
            await asyncio.create_task(asyncio.sleep(0))
        del task
        gc.collect()
        await ctx.wait_for_event("go")

    instance = waiting(body)
    assert "nobody asked" in caplog.text
    caplog.clear()
    instance.run(instance.raised("other"), replay=True)
    assert caplog.records == []


def test_the_executor_knows_what_it_holds():
    async def waiter(ctx: OrchestrationContext) -> None:
        _ = asyncio.create_task(asyncio.sleep(9))  # noqa: RUF006
        await ctx.wait_for_event("go")

    app = App()
    app.orchestrator(waiter)
    executor = Executor(app)
    instances = [Instance(app, "waiter", instance_id=f"i-{n}", executor=executor) for n in range(4)]
    for instance in instances:
        instance.run()
    instances[0].raise_event("other")
    assert len(executor) == 4
    assert executor.holds("i-0", instances[0].execution_id, 2)
    assert not executor.holds("i-0", instances[0].execution_id, 1)
    assert not executor.holds("i-0", "another", 2)
    assert not executor.holds("i-9", "another", 2)
    assert executor.drop("i-1")
    assert not executor.drop("i-1")
    assert len(executor) == 3
    executor.drop_all()
    assert len(executor) == 0


def test_what_outlives_a_dropped_execution_does_nothing():
    kept: list[Any] = []

    async def body(ctx: OrchestrationContext) -> None:
        loop = asyncio.get_running_loop()
        kept.extend([ctx.call_activity("a"), ctx.wait_for_event("x", timeout=5)])
        kept.append(loop.call_later(5, print))
        await ctx.wait_for_event("go")

    instance = waiting(body)
    drop(instance)
    call, event, handle = kept
    handle.cancel()
    assert not call.cancel()
    assert event.cancel()
    assert instance.run(instance.raised("other")).actions == ()


def test_an_abandoned_executor_drops_what_it_holds():
    reached: list[str] = []

    async def body(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_event("go")
        finally:
            reached.append("finally")
            ctx.send_event("other", "ended")
            reached.append("after")

    instance = waiting(body)
    del instance
    gc.collect()
    assert reached == ["finally"]


def test_an_executor_that_dies_with_the_process_makes_its_code_inert(
    monkeypatch: pytest.MonkeyPatch,
):
    inert: list[bool] = []

    async def body(ctx: OrchestrationContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await ctx.wait_for_event("go")
        finally:
            inert.append(loop.is_closed())

    instance = waiting(body)
    monkeypatch.setattr("sys.is_finalizing", lambda: True)
    del instance
    gc.collect()
    monkeypatch.undo()
    assert inert == [True]


def test_a_waiting_instance_is_small():
    app, count = App(), 200

    @app.orchestrator
    async def waiter(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("go")

    @app.orchestrator
    async def sleeper(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(60)

    for name in ("waiter", "sleeper"):
        executor = Executor(app)
        instances = [
            Instance(app, name, instance_id=str(n), executor=executor) for n in range(count)
        ]
        items = [instance.item() for instance in instances]
        executor.run(items.pop())
        tracemalloc.start()
        try:
            for item in items:
                executor.run(item)
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used / count < 3_000


def test_another_execution_of_the_instance_replaces_the_resident():
    async def body(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_event("go")
        return ctx.execution_id

    instance = waiting(body)
    instance.execution_id, instance.turn = "f" * 32, 0
    instance.run()
    assert len(instance.executor) == 1
    assert result_of(instance.raise_event("go")) == "f" * 32


def waits_of(ctx: OrchestrationContext) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "activity": lambda: ctx.call_activity("x"),
        "event": lambda: ctx.wait_for_event("go"),
        "event in time": lambda: ctx.wait_for_event("go", timeout=5),
        "sleep": lambda: asyncio.sleep(5),
        "timer": lambda: ctx.create_timer(timedelta(1)),
        "calls": lambda: asyncio.gather(ctx.call_activity("x"), ctx.call_activity("y")),
        "tasks": lambda: asyncio.gather(asyncio.sleep(5), asyncio.sleep(6)),
    }


WAITS = ["activity", "event", "event in time", "sleep", "timer", "calls", "tasks"]


@pytest.mark.parametrize("wait", WAITS)
def test_what_is_dropped_leaves_no_garbage(wait: str):
    """A collection comes seldom where hundreds of thousands are alive: none must be needed."""

    async def body(ctx: OrchestrationContext) -> None:
        await waits_of(ctx)[wait]()

    instance = waiting(body)
    loop = weakref.ref(instance.executor._residents[instance.instance_id]._loop)
    gc.disable()
    try:
        assert instance.executor.drop(instance.instance_id)
        assert loop() is None
    finally:
        gc.enable()
