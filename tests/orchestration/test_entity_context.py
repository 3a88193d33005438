"""What orchestrators ask of entities, and what critical sections allow."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import App, EntityId, OrchestrationContext
from shardrt.core.history import (
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EntityUnlockSent,
    TaskCanceled,
)
from shardrt.errors import EntityFailed, LockViolation
from tests.orchestration.harness import (
    SECOND,
    START,
    failure_in,
    raw,
    reason_of,
    result_of,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Callable

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value


A, B = EntityId(Counter, "a"), EntityId("counter", "b")


def section_of(step: Any) -> str:
    (wish,) = [each for each in step.actions if isinstance(each, EntityLockRequested)]
    name: str = wish.section
    return name


def test_a_call_returns_what_the_operation_returned():
    async def body(ctx: OrchestrationContext) -> int:
        return await ctx.call_entity(A, Counter.add, 3)

    instance, step = started(body, app)
    assert step.actions == (EntityOperationCalled(1, "@counter@a", "add", raw(3)),)
    assert result_of(instance.complete(1, 8)) == 8


def test_a_failed_operation_raises():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_entity("@Counter@a@b", "add", 3)
        except EntityFailed as error:
            return f"{error.error_type} {error}"
        return ""

    instance, step = started(body)
    assert step.actions == (EntityOperationCalled(1, "@counter@a@b", "add", raw(3)),)
    text = result_of(instance.fail(1))
    assert text == "ValueError operation '@counter@a@b add' (task 1) failed: ValueError: no"


def test_a_result_is_of_the_annotated_type_or_of_the_one_asked_for():
    async def body(ctx: OrchestrationContext) -> list[str]:
        first = await ctx.call_entity("@counter@a", "get", result_type=str)
        second = await ctx.call_entity("@elsewhere@a", "get")
        try:
            await ctx.call_entity("@counter@a", "get")
        except EntityFailed as error:
            return [first, second, error.error_type]
        return []

    instance, _ = started(body, app)
    instance.complete(1, "x")
    instance.complete(2, "y")
    assert result_of(instance.complete(3, "no int")) == ["x", "y", "InputInvalid"]


def test_a_signal_has_no_answer():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(A, Counter.add, 3)
        ctx.signal_entity(A, "add", 4, at=timedelta(seconds=5))

    _, step = started(body)
    assert step.actions == (
        EntityOperationSignaled(1, "@counter@a", "add", raw(3)),
        EntityOperationSignaled(2, "@counter@a", "add", raw(4), START + 5 * SECOND),
    )
    assert result_of(step) is None


def test_giving_up_a_call_cancels_it():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.call_entity(A, "add", 3)
        except TimeoutError:
            return "late"
        return ""

    instance, _ = started(body)
    step = instance.fire(1)
    assert step.actions == (TaskCanceled(2),)
    assert result_of(step) == "late"


@pytest.mark.parametrize("entity", ["counter", "@counter", "@@a", "", "@a"])
def test_what_is_no_entity_id_is_refused(entity: str):
    async def body(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(entity, "add")

    _, step = started(body)
    assert failure_in(step).type == "InputInvalid"


# -- critical sections -----------------------------------------------------------------------------


def test_a_section_is_asked_for_in_order_and_released_at_its_end():
    async def body(ctx: OrchestrationContext) -> str:
        async with ctx.lock(B, A, "@COUNTER@b"):
            await ctx.call_entity(A, "add", 1)
        return "done"

    instance, step = started(body)
    section = section_of(step)
    assert step.actions == (EntityLockRequested(1, section, ("@counter@a", "@counter@b")),)
    step = instance.complete(1)
    assert step.actions == (EntityOperationCalled(2, "@counter@a", "add", raw(1), section),)
    step = instance.complete(2, 1)
    assert step.actions == (
        EntityUnlockSent(3, section, "@counter@a"),
        EntityUnlockSent(4, section, "@counter@b"),
    )
    assert result_of(step) == "done"


def test_a_section_is_released_when_its_block_raises():
    async def body(ctx: OrchestrationContext) -> None:
        async with ctx.lock(A):
            raise ValueError("no")

    instance, step = started(body)
    section = section_of(step)
    step = instance.complete(1)
    assert step.actions == (EntityUnlockSent(2, section, "@counter@a"),)
    assert failure_in(step).type == "ValueError"


def test_who_stops_waiting_for_a_lock_gives_it_up():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(5), ctx.lock(A):
                return "locked"
        except TimeoutError:
            async with ctx.lock(B):
                return "late"

    instance, _ = started(body)
    step = instance.fire(1)
    assert step.actions[:1] == (TaskCanceled(2),)
    assert result_of(instance.complete(3)) == "late"


def test_a_lock_that_is_granted_while_it_is_given_up_is_released():
    async def body(ctx: OrchestrationContext) -> str:
        async def waits() -> None:
            async with ctx.lock(A):
                pass

        task = asyncio.ensure_future(waits())
        await ctx.wait_for_event("go")
        return "gone" if task.cancel() else "late"

    instance, step = started(body)
    section = section_of(step)
    step = instance.run(instance.completed(1), instance.raised("go"))
    (unlock,) = step.actions
    assert isinstance(unlock, EntityUnlockSent)
    assert unlock.section == section


def inside(act: Callable[[OrchestrationContext], Any]) -> str:
    """Return how what is done in a section fails."""

    async def body(ctx: OrchestrationContext) -> None:
        async with ctx.lock(A):
            found = act(ctx)
            if found is not None:
                await found

    instance, _ = started(body, app)
    failure = failure_in(instance.complete(1))
    assert failure.type == "LockViolation", failure
    return failure.message


async def nested(ctx: OrchestrationContext) -> None:
    async with ctx.lock(B):
        pass


def test_what_could_wait_for_ever_is_refused_in_a_section():
    assert "no sub-orchestration" in inside(lambda ctx: ctx.call_sub_orchestrator("x"))
    assert "continue as new" in inside(lambda ctx: ctx.continue_as_new())
    assert "not locked" in inside(lambda ctx: ctx.call_entity(B, "get"))
    assert "signalled" in inside(lambda ctx: ctx.signal_entity(A, "add", 1))
    assert "no further lock" in inside(nested)
    twice = inside(lambda ctx: (ctx.call_entity(A, "get"), ctx.call_entity(A, "get"))[1])
    assert "has answered" in twice


def test_other_entities_can_be_signalled_in_a_section():
    async def body(ctx: OrchestrationContext) -> None:
        async with ctx.lock(A):
            ctx.signal_entity(B, "add", 1)
            await ctx.call_entity(A, "get")
            await ctx.call_entity(A, "get")

    instance, _ = started(body)
    instance.complete(1)
    instance.complete(3)
    assert result_of(instance.complete(4)) is None


def test_the_rules_hold_while_the_lock_is_waited_for():
    async def body(ctx: OrchestrationContext) -> str:
        async def waits() -> None:
            async with ctx.lock(A):
                pass

        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        try:
            await ctx.call_entity(A, "get")
        except LockViolation:
            await task
            return "refused"
        return ""

    instance, _ = started(body)
    assert result_of(instance.complete(1)) == "refused"


def test_a_lock_is_for_one_block_and_of_something():
    async def body(ctx: OrchestrationContext) -> str:
        section = ctx.lock(A)
        async with section:
            pass
        try:
            async with section:
                pass
        except LockViolation:
            ctx.lock()
        return ""

    instance, _ = started(body)
    assert failure_in(instance.complete(1)).type == "InputInvalid"


# -- replay ----------------------------------------------------------------------------------------


async def busy(ctx: OrchestrationContext) -> list[int]:
    ctx.signal_entity(B, "add", 1)
    found = [await ctx.call_entity(A, Counter.add, 1)]
    async with ctx.lock(A, B):
        pair = (ctx.call_entity(A, Counter.get), ctx.call_entity(B, Counter.get))
        found += await asyncio.gather(*pair)
        try:
            await ctx.call_entity(A, Counter.add, 5)
        except EntityFailed:
            found.append(-1)
    try:
        async with asyncio.timeout(1), ctx.lock(B):
            pass
    except TimeoutError:
        found.append(-2)
    return found


def told(*, replay: bool) -> list[Any]:
    instance, step = started(busy, app)
    arrivals = (
        lambda: instance.completed(2, 1),
        lambda: instance.completed(3),
        lambda: instance.completed(5, 7),
        lambda: instance.completed(4, 6),
        lambda: instance.failed(6),
        lambda: instance.fired(9),
    )
    steps = [step, *(instance.run(arrive(), replay=replay) for arrive in arrivals)]
    assert result_of(steps[-1]) == [1, 6, 7, -1, -2]
    return [(each.actions, each.outcome) for each in steps]


def test_a_replay_asks_for_the_same():
    assert told(replay=True) == told(replay=False)


def test_other_code_is_parked_with_both_sides():
    entity = [A]

    async def body(ctx: OrchestrationContext) -> None:
        async with ctx.lock(entity[0]):
            await ctx.call_entity(entity[0], "get")

    instance, _ = started(body)
    entity[0] = B
    reason = reason_of(instance.run(instance.completed(1), replay=True))
    assert "EntityLockRequested #1 for @counter@a" in reason
    assert "EntityLockRequested #1 for @counter@b" in reason


def test_dropping_code_in_a_section_releases_nothing():
    async def body(ctx: OrchestrationContext) -> int:
        async with ctx.lock(A):
            return await ctx.call_entity(A, Counter.get)

    instance, _ = started(body)
    instance.complete(1)
    step = instance.run(instance.completed(2, 4), replay=True)
    assert [type(each) for each in step.actions] == [EntityUnlockSent]
    assert result_of(step) == 4
