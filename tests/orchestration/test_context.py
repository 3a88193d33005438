"""What an orchestrator can ask of its context, and what it is told."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import (
    EventRaised,
    EventSent,
    Failure,
    Parent,
    Retry,
    SubOrchestrationInstanceCreated,
    TaskCanceled,
    TaskFailed,
    TaskScheduled,
    TimerCanceled,
    TimerCreated,
)
from shardrt.errors import ActivityFailed, SubOrchestrationFailed
from shardrt.orchestration.app import App
from shardrt.orchestration.retry import RetryPolicy
from tests.orchestration.harness import (
    NULL,
    SECOND,
    START,
    Instance,
    continued,
    failure_in,
    raw,
    reason_of,
    result_of,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.core.work import Step
    from shardrt.orchestration.context import OrchestrationContext

app = App()


@app.activity(retry=RetryPolicy(max_attempts=2, jitter=0), timeout=30, speculative=True)
async def charge(amount: int) -> datetime:
    return datetime.fromtimestamp(amount, UTC)


@app.orchestrator(version="3")
async def ship(ctx: OrchestrationContext, to: str) -> tuple[str, int]:
    return to, 1


def begin(body: Callable[[OrchestrationContext], Awaitable[Any]]) -> tuple[Instance, Step]:
    return started(body, app)


def test_the_facts_of_an_execution():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        return [
            ctx.instance_id,
            ctx.execution_id[:8],
            ctx.name,
            ctx.version,
            ctx.parent_instance_id,
            ctx.is_replaying,
            ctx.get_input(),
            ctx.get_input(dict[str, float]),
            ctx.current_utc_datetime,
        ]

    _, step = begin(body)
    now = datetime.fromtimestamp(START / SECOND, UTC).isoformat().replace("+00:00", "Z")
    facts = ["i-1", "01234567", "orchestrator", None, None, False, {"n": 1}, {"n": 1.0}, now]
    assert result_of(step) == facts


def test_a_child_knows_its_parent():
    child = Instance(app, "ship", "x", version="3")
    child.started = type(child.started)(
        at=START, name="ship", input=raw("x"), version="3", parent=Parent("p", "e", 1)
    )
    assert result_of(child.run()) == ["x", 1]


def test_an_activity_is_scheduled_with_what_it_was_registered_with():
    async def body(ctx: OrchestrationContext) -> datetime:
        return await ctx.call_activity(charge, 7)

    instance, step = begin(body)
    retry = Retry(max_attempts=2, first_interval=SECOND, max_interval=60 * SECOND)
    scheduled = TaskScheduled(1, "charge", raw(7), retry, 30 * SECOND, speculative=True)
    assert step.actions == (scheduled,)
    assert result_of(instance.complete(1, "2020-01-01T00:00:00Z")) == "2020-01-01T00:00:00Z"


def test_a_call_can_bring_its_own_retry_and_timeout():
    async def body(ctx: OrchestrationContext) -> None:
        once = RetryPolicy(max_attempts=1, first_interval=0, max_interval=None, jitter=0)
        _ = ctx.call_activity(charge, 7, retry=once, timeout=timedelta(minutes=1))
        _ = ctx.call_activity("elsewhere", 7, retry=once)
        await ctx.call_activity(charge, 7, timeout=2)

    _, step = begin(body)
    once = Retry(max_attempts=1, first_interval=0)
    assert step.actions[0] == TaskScheduled(
        1, "charge", raw(7), once, 60 * SECOND, speculative=True
    )
    assert step.actions[1] == TaskScheduled(2, "elsewhere", raw(7), once)
    third = step.actions[2]
    assert isinstance(third, TaskScheduled)
    assert (third.retry is None, third.timeout) == (False, 2 * SECOND)


def test_a_result_has_the_type_that_was_asked_for():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        day = await ctx.call_activity("day", result_type=datetime)
        return [day.year, await ctx.call_activity("anything")]

    instance, _ = begin(body)
    instance.complete(1, "2021-02-03T00:00:00")
    assert result_of(instance.complete(2, {"a": [1]})) == [2021, {"a": [1]}]


def test_a_result_that_does_not_fit_is_an_error():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(charge, 1)
        except ActivityFailed as error:
            return f"{error.error_type}; {error}"
        return ""

    instance, _ = begin(body)
    message = result_of(instance.complete(1, [1]))
    expected = "activity 'charge' (task 1) failed: InputInvalid: its result: Expected `datetime`, "
    assert message.startswith(f"InputInvalid; {expected}")


def test_a_failed_activity_raises_with_its_type_message_and_cause():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.call_activity(charge, 1)
        except ActivityFailed as error:
            return [error.error_type, error.message, error.details, error.cause, str(error)]
        return []

    instance, _ = begin(body)
    text = "activity 'charge' (task 1) failed: KeyError: no such card"
    step = instance.fail(1, "KeyError", "no such card")
    assert result_of(step) == ["KeyError", "no such card", "Traceback …", None, text]


def test_an_unhandled_failure_fails_the_instance_and_keeps_the_cause():
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(charge, 1)

    instance, _ = begin(body)
    failure = failure_in(instance.fail(1))
    assert failure.type == "ActivityFailed"
    assert "in body" in failure.details
    assert failure.cause is not None
    assert (failure.cause.type, failure.cause.message) == ("ValueError", "no")


def test_a_child_gets_an_id_of_its_execution():
    async def body(ctx: OrchestrationContext) -> str:
        to, _ = await ctx.call_sub_orchestrator(ship, "Rome")
        return to

    instance, step = begin(body)
    child = SubOrchestrationInstanceCreated(1, "i-1:01234567:0001", "ship", raw("Rome"), "3")
    assert step.actions == (child,)
    assert result_of(instance.complete(1, ["Oslo", 2])) == "Oslo"


def test_a_child_elsewhere_can_have_an_id_a_version_and_retries():
    async def body(ctx: OrchestrationContext) -> str:
        retry = RetryPolicy(max_attempts=2, jitter=0)
        try:
            await ctx.call_sub_orchestrator(
                "far", instance_id="c", version="9", retry=retry, result_type=int
            )
        except SubOrchestrationFailed as error:
            return str(error)
        return ""

    instance, step = begin(body)
    retry = Retry(max_attempts=2, first_interval=SECOND, max_interval=60 * SECOND)
    assert step.actions == (SubOrchestrationInstanceCreated(1, "c", "far", NULL, "9", retry),)
    assert result_of(instance.fail(1)) == "sub-orchestration 'far' (task 1) failed: ValueError: no"


@pytest.mark.parametrize("kind", ["activity", "child"])
def test_a_function_that_is_not_registered_is_refused(kind: str):
    async def stranger() -> None: ...

    async def body(ctx: OrchestrationContext) -> None:
        if kind == "activity":
            await ctx.call_activity(stranger)
        await ctx.call_sub_orchestrator(stranger)

    _, step = begin(body)
    failure = failure_in(step)
    assert failure.type in {"ActivityNotRegistered", "OrchestratorNotRegistered"}
    assert "stranger is not registered" in failure.message


def test_calls_start_when_they_are_made():
    async def body(ctx: OrchestrationContext) -> str:
        call = ctx.call_activity("a")
        await ctx.wait_for_event("go")
        return str(await call)

    instance, step = begin(body)
    assert step.actions == (TaskScheduled(1, "a", NULL),)
    instance.complete(1, "early")
    assert result_of(instance.raise_event("go")) == "early"


def test_cancelling_a_call_gives_it_up_and_its_result_is_ignored():
    async def body(ctx: OrchestrationContext) -> str:
        call, child = ctx.call_activity("a"), ctx.call_sub_orchestrator("b")
        assert call.cancel()
        assert not call.cancel()
        child.cancel()
        await ctx.wait_for_event("go")
        return "gone"

    instance, step = begin(body)
    assert step.actions[2:] == (TaskCanceled(1), TaskCanceled(2))
    instance.run(instance.completed(1), TaskFailed(2, 0, Failure(type="X")))
    assert result_of(instance.raise_event("go")) == "gone"


def test_a_timer_takes_a_time_or_a_duration():
    async def body(ctx: OrchestrationContext) -> str:
        now = ctx.current_utc_datetime
        zone = timezone(timedelta(hours=5))
        _ = ctx.create_timer(timedelta(days=30))
        _ = ctx.create_timer((now + timedelta(hours=1)).astimezone(zone))
        _ = ctx.create_timer((now + timedelta(hours=2)).replace(tzinfo=None))
        await ctx.create_timer(now - timedelta(days=1))
        cancelled = ctx.create_timer(timedelta(1))
        assert cancelled.cancel()
        assert not cancelled.cancel()
        await ctx.create_timer(timedelta(seconds=1))
        return "done"

    instance, step = begin(body)
    hour = 3600 * SECOND
    assert step.actions == (
        TimerCreated(1, START + 30 * 24 * hour),
        TimerCreated(2, START + hour),
        TimerCreated(3, START + 2 * hour),
        TimerCreated(4, START + 24 * hour),
        TimerCanceled(4),
        TimerCreated(5, START + SECOND),
    )
    assert result_of(instance.fire(5)) == "done"


def test_a_timer_that_was_cancelled_by_hand_stays_cancelled():
    async def body(ctx: OrchestrationContext) -> bool:
        timer = ctx.create_timer(timedelta(0))
        asyncio.Future.cancel(timer)
        await asyncio.sleep(0)
        return timer.cancelled()

    _, step = begin(body)
    assert result_of(step) is True


def test_an_event_is_sent_with_the_turn():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.send_event("other", "Hello", {"a": 1})

    _, step = begin(body)
    assert step.actions == (EventSent(1, "other", "Hello", raw({"a": 1})),)


def test_the_custom_status_of_a_turn_is_the_last_one_set():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status("one")
        ctx.set_custom_status("two")
        await ctx.wait_for_event("go")
        ctx.set_custom_status(None)
        await ctx.wait_for_event("go")

    instance, step = begin(body)
    assert step.custom_status == raw("two")
    assert instance.raise_event("other").custom_status is None
    assert instance.raise_event("go").custom_status == NULL


def test_continue_as_new_carries_what_nobody_has_consumed_in_order():
    async def body(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_event("go")
        first = await ctx.wait_for_event("b")
        ctx.continue_as_new({"first": first})
        return "ignored"

    instance, _ = begin(body)
    instance.run(instance.raised("a", 1), instance.raised("b", 2), instance.raised("A", 3))
    step = instance.run(
        instance.raised("b", 4),
        instance.raised("GO"),
        instance.raised("c", 5),
        instance.raised("c"),
    )
    outcome = continued(step)
    assert outcome.input == raw({"first": 2})
    carried = [(e.name, e.data) for e in outcome.carried if isinstance(e, EventRaised)]
    assert carried == [("a", raw(1)), ("A", raw(3)), ("b", raw(4)), ("c", raw(5)), ("c", NULL)]


def test_continue_as_new_can_leave_events_behind_and_keeps_actions():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new(carry_events=False)
        ctx.send_event("other", "bye")

    mine = App()
    mine.orchestrator(body)
    instance = Instance(mine, "body")
    step = instance.run(instance.raised("x"))
    assert (continued(step).carried, len(step.actions)) == ((), 1)


def test_continue_as_new_of_a_body_that_never_waited_carries_the_arrivals_of_its_turn():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new()

    mine = App()
    mine.orchestrator(body)
    instance = Instance(mine, "body")
    arrivals = (instance.raised("x"), instance.raised("y"))
    assert continued(instance.run(*arrivals)).carried == arrivals


def test_a_body_that_raises_fails_even_after_continue_as_new():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new()
        raise LookupError("after all")

    _, step = begin(body)
    assert failure_in(step).type == "LookupError"


def test_uuids_and_random_numbers_are_the_same_in_a_replay():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        seen = [str(ctx.new_uuid()), str(ctx.new_uuid()), ctx.random.random()]
        await ctx.wait_for_event("go")
        return [*seen, str(ctx.new_uuid()), ctx.random.random()]

    def run(execution_id: str, *, replay: bool) -> list[Any]:
        mine = App()
        mine.orchestrator(name="body")(body)
        instance = Instance(mine, "body", execution_id=execution_id)
        instance.run()
        return list(result_of(instance.run(instance.raised("go"), replay=replay)))

    live = run("a" * 32, replay=False)
    assert live == run("a" * 32, replay=True)
    assert len(set(live)) == 5
    assert not set(live) & set(run("b" * 32, replay=False))


def test_the_logger_names_the_instance_and_is_silent_while_replaying(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    replaying: list[bool] = []

    async def body(ctx: OrchestrationContext) -> None:
        ctx.logger.info("one %d", 1)
        replaying.append(ctx.is_replaying)
        await ctx.wait_for_event("go")
        ctx.logger.info("two")
        replaying.append(ctx.is_replaying)

    instance, _ = begin(body)
    instance.run(instance.raised("go"), replay=True)
    assert caplog.messages == ["one 1 [instance_id=i-1]", "two [instance_id=i-1]"]
    assert replaying == [False, True, False]


def test_a_result_that_cannot_be_told_fails_the_instance():
    async def body(ctx: OrchestrationContext) -> object:
        return {"a": [object()]}

    _, step = begin(body)
    failure = failure_in(step)
    assert failure.type == "InputInvalid"
    assert failure.message.startswith("result: ")
    assert failure.message.endswith("- at `$.a[0]`")


def test_an_input_that_does_not_fit_fails_the_instance():
    step = Instance(app, "ship", 17, version="3").run()
    message = "input of orchestrator 'ship' version '3': Expected `str`, got `int`"
    assert failure_in(step).message == message
    assert failure_in(Instance(app, "ship", 17, version="3").run()).type == "InputInvalid"


def test_an_unknown_orchestrator_parks_the_instance():
    assert reason_of(Instance(app, "nobody").run()) == "no orchestrator 'nobody' is registered"
    reason = reason_of(Instance(app, "ship", version="4").run())
    assert reason == "orchestrator 'ship' version '4' is not registered; there is version '3'"


def test_a_body_that_cancels_itself_fails():
    async def body(ctx: OrchestrationContext) -> None:
        raise asyncio.CancelledError

    _, step = begin(body)
    assert failure_in(step).type == "CancelledError"


def test_an_activity_without_input_takes_none():
    mine = App()

    @mine.activity
    def plain() -> None: ...

    @mine.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(plain, 3)  # type: ignore[arg-type]

    failure = failure_in(Instance(mine, "flow").run())
    assert failure.message == "activity 'plain' takes no input"


def test_a_call_that_was_settled_by_hand_stays_so():
    async def body(ctx: OrchestrationContext) -> list[Any]:
        calls = [ctx.call_activity("a"), ctx.call_activity("b")]
        for call in calls:
            call.set_result("by hand")
        await ctx.wait_for_event("go")
        return [await call for call in calls]

    instance, _ = begin(body)
    instance.run(instance.completed(1, "late"), instance.failed(2))
    assert result_of(instance.raise_event("go")) == ["by hand", "by hand"]


def test_a_child_given_by_function_can_be_of_another_version():
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(ship, "x", version="9")

    _, step = begin(body)
    (child,) = step.actions
    assert isinstance(child, SubOrchestrationInstanceCreated)
    assert child.version == "9"


def test_the_arguments_of_a_call_are_checked_at_the_call():
    async def body(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(charge, object())  # type: ignore[arg-type]

    _, step = begin(body)
    assert failure_in(step).message.startswith("input of activity 'charge': ")
    assert step.actions == ()
