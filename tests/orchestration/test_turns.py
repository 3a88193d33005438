"""A turn: what it may not reach, where it ends, and how it leaves its host."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.work import Parked
from tests.orchestration.harness import Instance, failure_in, result_of, started

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.orchestration.context import OrchestrationContext


def test_a_turn_that_never_waits_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shardrt.orchestration.loop.TURN_CALLBACKS_MAX", 1_000)

    async def body(ctx: OrchestrationContext) -> None:
        for _ in iter(int, 1):
            await asyncio.sleep(0)

    instance, step = started(body)
    assert "sleep(0)" in failure_in(step).message
    assert len(instance.executor) == 0


async def send_for_ever(ctx: OrchestrationContext) -> None:
    for number in iter(int, 1):
        ctx.send_event("other", "x", number)


async def start_for_ever(ctx: OrchestrationContext) -> None:
    calls = [ctx.call_activity("charge", 1) for _ in iter(int, 1)]
    await asyncio.gather(*calls)


@pytest.mark.parametrize("body", [send_for_ever, start_for_ever])
def test_a_loop_that_lacks_an_await_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, body: Callable[..., Awaitable[None]]
):
    monkeypatch.setattr("shardrt.orchestration.ledger.ACTIONS_MAX", 1_000)
    instance, step = started(body)
    assert isinstance(step.outcome, Parked)
    assert "asked for more than 1000 things without waiting" in step.outcome.reason
    assert f"in {body.__name__}" in step.outcome.reason
    assert step.actions == ()
    assert len(instance.executor) == 0


def test_what_a_turn_asked_for_before_there_was_a_bound_is_replayed(
    monkeypatch: pytest.MonkeyPatch,
):
    async def body(ctx: OrchestrationContext) -> int:
        return len(await asyncio.gather(*(ctx.call_activity("charge", n) for n in range(5))))

    instance, _ = started(body)
    monkeypatch.setattr("shardrt.orchestration.ledger.ACTIONS_MAX", 4)
    for number in range(1, 5):
        instance.complete(number)
    assert result_of(instance.run(instance.completed(5), replay=True)) == 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().run_in_executor(None, print),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
)
def test_the_world_outside_is_refused_by_name(call: Callable[[], Awaitable[Any]]):
    async def body(ctx: OrchestrationContext) -> None:
        await call()

    _, step = started(body)
    failure = failure_in(step)
    assert failure.type == "RuntimeError"
    assert "is not available in an orchestrator" in failure.message
    assert "loop." in failure.message


def test_the_loop_answers_what_asyncio_asks_of_it():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        return [
            loop.is_running(),
            loop.is_closed(),
            loop.get_debug(),
            loop.get_exception_handler(),
            loop.get_task_factory(),
        ]

    _, step = started(body)
    assert result_of(step) == [True, False, False, None, None]


def test_the_loop_of_the_host_is_running_again_after_a_turn():
    seen: list[asyncio.AbstractEventLoop] = []

    async def body(ctx: OrchestrationContext) -> None:
        seen.append(asyncio.get_running_loop())

    async def host() -> None:
        task = asyncio.current_task()
        started(body)
        assert asyncio.get_running_loop() not in seen
        assert asyncio.current_task() is task

    asyncio.run(host())
    assert len(seen) == 1


def test_between_turns_in_a_row_the_loop_of_the_host_runs():
    seen: list[asyncio.AbstractEventLoop] = []

    async def body(ctx: OrchestrationContext) -> None:
        seen.append(asyncio.get_running_loop())
        await ctx.wait_for_event("go")
        seen.append(asyncio.get_running_loop())

    async def host() -> None:
        loop, hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        assert hooks.firstiter is not None
        instance, _ = started(body)
        with instance.executor.turns():
            assert asyncio.get_running_loop() is loop
            instance.raise_event("go")
            assert asyncio.get_running_loop() is loop
            assert sys.get_asyncgen_hooks() == (None, None)
        assert sys.get_asyncgen_hooks() == hooks
        assert loop not in seen

    asyncio.run(host())
    assert len(seen) == 2


def test_what_is_around_turns_is_looked_at_anew_after_those_in_a_row():
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_event("go")
        await ctx.wait_for_event("go")

    async def host(instance: Instance) -> None:
        loop = asyncio.get_running_loop()
        with instance.executor.turns():
            instance.raise_event("go")
        assert asyncio.get_running_loop() is loop

    instance, _ = started(body)
    asyncio.run(host(instance))
    asyncio.run(host(instance))


def test_the_task_of_the_host_is_current_again_where_there_is_one_per_thread(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("shardrt.orchestration.loop._ONE_TASK_PER_THREAD", True)

    async def body(ctx: OrchestrationContext) -> None: ...

    async def host() -> None:
        task = asyncio.current_task()
        _, step = started(body)
        assert result_of(step) is None
        assert asyncio.current_task() is task

    asyncio.run(host())
    _, step = started(body)
    assert result_of(step) is None


def test_callbacks_run_in_the_context_given():
    async def body(ctx: OrchestrationContext) -> list[str]:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("x", default="outer")
        context = contextvars.copy_context()
        context.run(variable.set, "inner")
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        for each in (context, None):
            loop.call_later(1, lambda: seen.append(variable.get()), context=each)
        await asyncio.sleep(2)
        return seen

    instance, _ = started(body)
    instance.run(instance.fired(1), instance.fired(2))
    assert result_of(instance.fire(3)) == ["inner", "outer"]


def test_an_abandoned_async_generator_does_not_reach_the_host():
    closed: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            closed.append("closed")

    async def body(ctx: OrchestrationContext) -> int:
        async for number in numbers():
            return int(number)
        return 0

    async def host() -> None:
        _, step = started(body)
        assert result_of(step) == 1
        assert closed == ["closed"]

    asyncio.run(host())


def test_an_exception_in_a_callback_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture):
    async def body(ctx: OrchestrationContext) -> str:
        loop = asyncio.get_running_loop()
        loop.call_soon(divmod, 1, 0)
        loop.call_soon(exit_now)
        await asyncio.sleep(0)
        loop.default_exception_handler({"message": "by hand"})
        return "fine"

    def exit_now() -> None:
        raise SystemExit(3)

    _, step = started(body)
    assert result_of(step) == "fine"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_exiting_fails_the_instance_and_not_the_host():
    async def body(ctx: OrchestrationContext) -> None:
        raise SystemExit(3)

    _, step = started(body)
    assert failure_in(step).type == "SystemExit"


def test_an_interrupt_goes_to_the_host():
    async def body(ctx: OrchestrationContext) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        started(body)
