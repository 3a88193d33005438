"""Attempts of an activity that keeps failing fail at once, for a while."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import (
    ActivityContext,
    App,
    CircuitBreaker,
    ExecutionInfo,
    OrchestrationContext,
    RetryPolicy,
    Runtime,
)
from shardrt.core.history import Failure
from shardrt.errors import ActivityFailed, CircuitOpen, ConfigInvalid, OrchestrationFailed
from shardrt.orchestration.middleware import ExecutionKind
from shardrt.testing import Environment, run_virtual
from shardrt.testing.virtual import pass_time

if TYPE_CHECKING:
    from collections.abc import Callable

ONCE_A_SECOND = RetryPolicy(max_attempts=100, first_interval=1, backoff=1, jitter=0)


class Control:
    """Says whether an attempt is still wanted."""

    cancelled = False

    def heartbeat(self, details: object) -> None: ...

    def is_cancelled(self) -> bool:
        return self.cancelled


def info(name: str = "charge", control: Control | None = None) -> ExecutionInfo:
    context = ActivityContext(name=name, control=control)
    kind = ExecutionKind.ACTIVITY
    return ExecutionInfo(kind=kind, name=name, instance_id="i", context=context)


async def attempt(
    breaker: CircuitBreaker, outcome: BaseException | str = "done", *, after_s: float = 0.0
) -> Any:
    """Make an attempt that ends like this; return its result, or the exception."""

    async def call_next() -> Any:
        await pass_time(after_s)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    try:
        return await breaker(info(), call_next)
    except Exception as error:  # noqa: BLE001 - that is what is asked for
        return error


def fails(breaker: CircuitBreaker, error: BaseException | None = None) -> Any:
    return attempt(breaker, error or OSError("down"))


def an_app(breaker: CircuitBreaker, charge: Callable[[], Any], **options: Any) -> App:
    app = App()
    app.execution_middleware(breaker)
    app.activity(name="charge", **options)(charge)

    @app.orchestrator
    async def buy(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("charge")

    return app


def test_a_circuit_opens_lets_one_through_after_a_while_and_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[float] = []
    began = 0.0

    async def charge() -> str:
        made.append(round(asyncio.get_running_loop().time() - began))
        if len(made) < 5:
            raise OSError("secret of one customer")
        return "paid"

    breaker = CircuitBreaker("charge", failures=3, open_for=timedelta(seconds=9.5))
    app = an_app(breaker, charge, retry=ONCE_A_SECOND)

    async def main() -> None:
        nonlocal began
        began = asyncio.get_running_loop().time()
        async with Environment(app) as env:
            handle = await env.client.start("buy")
            await env.advance(timedelta(seconds=5))
            assert breaker.is_open("charge")
            await env.crash()  # what the breaker decided is history
            assert await handle.result() == "paid"
            assert not breaker.is_open("charge")

    with caplog.at_level(logging.INFO, "shardrt.host.circuit_breaker"):
        run_virtual(main())
    # Three in a row; then one each time that it has been open for 9.5 s.
    assert made == [0, 1, 2, 12, 22]
    told = [each.message for each in caplog.records if "circuit_breaker" in each.name]
    assert [each.partition(":")[2] for each in told] == [
        " its circuit is open for 9.5 s",
        " its circuit is open for 9.5 s",
        " its circuit is closed",
    ]
    assert "secret" not in " ".join(told)


def test_an_orchestration_can_make_it_final_that_a_circuit_is_open() -> None:
    async def charge() -> None:
        raise OSError("down")

    final = RetryPolicy(max_attempts=9, first_interval=1, non_retryable=[CircuitOpen])
    app = an_app(CircuitBreaker("charge", failures=2, open_for=60), charge, retry=final)

    async def main() -> str:
        async with Environment(app) as env:
            with pytest.raises(OrchestrationFailed) as failed:
                await (await env.client.start("buy")).result()
            return str(failed.value)

    said = run_virtual(main())
    assert "CircuitOpen: activity 'charge' is left alone for another" in said
    assert "the last of many attempts failed as OSError" in said


def test_a_success_in_between_starts_the_count_anew() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=2)
        for _ in range(3):
            await fails(breaker)
            assert await attempt(breaker) == "done"
        await fails(breaker)
        assert not breaker.is_open("charge")
        await fails(breaker)
        assert breaker.is_open("charge")

    run_virtual(main())


def test_of_an_open_circuit_only_the_one_that_was_let_through_counts() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=1, open_for=10)
        early = asyncio.ensure_future(attempt(breaker, after_s=11))
        late = asyncio.ensure_future(attempt(breaker, OSError("down"), after_s=12))
        await pass_time(0)
        await fails(breaker)
        await pass_time(10.5)
        probe = asyncio.ensure_future(attempt(breaker, after_s=5))
        await pass_time(0)
        assert isinstance(await attempt(breaker), CircuitOpen), "there is one already"
        assert await early == "done"
        assert breaker.is_open("charge")
        await late
        assert await probe == "done"
        assert not breaker.is_open("charge")
        await attempt(breaker)

    run_virtual(main())


def test_one_that_was_let_through_and_hangs_keeps_nobody_out_for_ever() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=1, open_for=10)
        await fails(breaker)
        await pass_time(10)
        hanging = asyncio.ensure_future(attempt(breaker, after_s=100))
        await pass_time(9)
        assert isinstance(await attempt(breaker), CircuitOpen)
        await pass_time(1)
        assert await attempt(breaker) == "done"
        assert not breaker.is_open("charge")
        await hanging

    run_virtual(main())


def test_a_failure_from_before_does_not_keep_it_open_for_longer() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=1, open_for=10)
        late = asyncio.ensure_future(attempt(breaker, OSError("down"), after_s=9))
        await pass_time(0)
        await fails(breaker)
        await late
        await pass_time(1)
        assert await attempt(breaker) == "done"

    run_virtual(main())


def test_an_attempt_that_nobody_wants_any_more_counts_neither_way() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=1, open_for=10)
        await fails(breaker)
        await pass_time(10)
        control = Control()

        async def call_next() -> None:
            control.cancelled = True
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await breaker(info(control=control), call_next)
        assert breaker.is_open("charge")
        assert await attempt(breaker) == "done", "and so the next one is let through"

    run_virtual(main())


def test_a_time_limit_counts_as_a_failure() -> None:
    async def charge() -> None:
        await pass_time(100)

    breaker = CircuitBreaker("charge", failures=2, open_for=60)
    app = an_app(breaker, charge, timeout=5, retry=RetryPolicy(max_attempts=2))

    async def main() -> None:
        async with Environment(app) as env:
            with pytest.raises(OrchestrationFailed, match="TimeoutError"):
                await (await env.client.start("buy")).result()
            assert breaker.is_open("charge")

    run_virtual(main())


@pytest.mark.parametrize("outcome", ["done", OSError("down")], ids=str)
def test_an_attempt_that_is_slow_has_failed_at_that_moment_and_only_once(outcome: Any) -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=2, open_for=60, slow_after=3)
        slow = asyncio.ensure_future(attempt(breaker, outcome, after_s=10))
        await pass_time(2.9)
        await attempt(breaker, after_s=2.9)  # in time; meanwhile the other one is slow
        await slow
        await fails(breaker)
        assert not breaker.is_open("charge")
        await fails(breaker)
        assert breaker.is_open("charge")

        stuck = CircuitBreaker("charge", failures=1, slow_after=timedelta(seconds=3))
        slow = asyncio.ensure_future(attempt(stuck, outcome, after_s=10))
        await pass_time(3.1)
        assert stuck.is_open("charge")
        await slow
        assert stuck.is_open("charge")

    run_virtual(main())


def test_what_says_nothing_about_the_activity_is_ignored() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("charge", failures=1, ignore=[ValueError, "Declined"])
        await fails(breaker, ValueError("wrong"))
        # What a process tells of an activity that failed there.
        await fails(breaker, ActivityFailed(Failure(type="Declined", message="no")))
        assert not breaker.is_open("charge")
        await fails(breaker, ActivityFailed(Failure(type="OSError", message="down")))
        assert breaker.is_open("charge")

    run_virtual(main())


def test_each_activity_has_a_circuit_of_its_own_and_others_have_none() -> None:
    async def call_next() -> str:
        return "done"

    async def main() -> None:
        breaker = CircuitBreaker("charge", "ship", failures=1)
        await fails(breaker)
        assert (breaker.is_open("charge"), breaker.is_open("ship")) == (True, False)
        for name in ("ship", "render"):
            assert await breaker(info(name), call_next) == "done"
        with pytest.raises(KeyError):
            breaker.is_open("render")

    run_virtual(main())


def test_code_in_a_thread_is_spared_as_well() -> None:
    def charge() -> None:
        raise OSError("down")

    breaker = CircuitBreaker("charge", failures=2, open_for=3600)
    app = an_app(breaker, charge, retry=RetryPolicy(max_attempts=3, first_interval=0))

    async def main() -> None:
        async with Runtime(app, store="memory://", partitions=1) as runtime:
            handle = await runtime.client.start("buy")
            with pytest.raises(OrchestrationFailed, match="CircuitOpen"):
                await handle.result(timeout=20)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        ((), {}, "name an activity"),
        ((len,), {}, "by name"),
        (("a",), {"failures": 0}, "failures must be at least 1"),
        (("a",), {"open_for": 0}, "open_for must be positive"),
        (("a",), {"slow_after": -1}, "slow_after must be positive"),
        (("a",), {"ignore": "ValueError"}, "ignore must be a list"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: Any, options: Any, problem: str) -> None:
    with pytest.raises(ConfigInvalid, match=problem):
        CircuitBreaker(*arguments, **options)
