"""Registering functions, finding them again, and binding their parameters."""

from __future__ import annotations

import asyncio
import enum
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.core.history import NULL, Retry
from shardrt.errors import (
    ActivityNotRegistered,
    ConfigInvalid,
    InputInvalid,
    OrchestratorNotRegistered,
)
from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.app import App
from shardrt.orchestration.retry import RetryPolicy
from tests.orchestration.harness import raw, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from shardrt.orchestration.context import OrchestrationContext


@dataclass
class Order:
    id: str


def test_a_decorated_function_is_still_that_function():
    app = App()

    @app.activity
    async def double(n: int) -> int:
        return 2 * n

    @app.activity(name="other", timeout=3)
    def plain(ctx: ActivityContext, n: int) -> str:
        return f"{ctx.name}{n}"

    assert asyncio.run(double(2)) == 4
    assert plain(ActivityContext(name="x"), 2) == "x2"
    assert app.find_activity(double).name == "double"
    assert app.find_activity("other") is app.find_activity(plain)
    assert [each.name for each in app.activities] == ["double", "other"]


def test_the_options_of_an_activity():
    app = App()

    @app.activity(
        name="crunch",
        retry=RetryPolicy(max_attempts=5, non_retryable=[ValueError, "KeyError"]),
        timeout=timedelta(minutes=1),
        executor="process",
        max_concurrency=2,
        speculative=True,
    )
    def work() -> None: ...

    found = app.find_activity("crunch")
    assert found.retry is not None
    assert found.retry.non_retryable == ("ValueError", "KeyError")
    assert (found.timeout, found.executor, found.max_concurrency, found.speculative) == (
        60_000_000,
        "process",
        2,
        True,
    )


def test_where_an_activity_runs_follows_from_its_kind():
    app = App()

    @app.activity
    async def on_loop() -> None: ...

    @app.activity
    def in_thread() -> None: ...

    assert app.find_activity(on_loop).executor == "async"
    assert app.find_activity(in_thread).executor == "thread"


async def asynchronous() -> None: ...


def synchronous() -> None: ...


@pytest.mark.parametrize(
    ("fn", "options", "problem"),
    [
        (synchronous, {"executor": "fiber"}, "must be async, thread or process, not 'fiber'"),
        (synchronous, {"executor": "async"}, 'executor="async" does not go with a plain def'),
        (asynchronous, {"executor": "thread"}, 'executor="thread" does not go with a plain async'),
        (synchronous, {"max_concurrency": 0}, "max_concurrency must be at least 1, not 0"),
        (synchronous, {"timeout": 0}, "timeout must be positive, not 0"),
        (synchronous, {"name": ""}, "'' is no name for an activity"),
        (synchronous, {"name": "a\nb"}, "is no name for an activity"),
        (Order, {}, "goes on a function"),
        (lambda *args: None, {}, "*args cannot be bound"),
        (lambda a, b: None, {}, "more than one parameter beside its context ('a' and 'b')"),
    ],
)
def test_an_activity_that_cannot_be_is_refused(fn: Any, options: Any, problem: str):
    with pytest.raises(ConfigInvalid) as caught:
        App().activity(**options)(fn)
    assert problem in str(caught.value)


def test_an_orchestrator_must_be_async():
    with pytest.raises(ConfigInvalid, match="orchestrator 'synchronous': must be an async def"):
        App().orchestrator(synchronous)  # type: ignore[type-var]


def test_names_are_unique():
    app = App()
    app.activity(synchronous)
    app.orchestrator(asynchronous)
    with pytest.raises(ConfigInvalid, match="activity 'synchronous' is registered twice"):
        app.activity(synchronous)
    with pytest.raises(ConfigInvalid, match="orchestrator 'asynchronous' is registered twice"):
        app.orchestrator(asynchronous)


def test_several_versions_live_side_by_side():
    app = App()

    @app.orchestrator(name="flow", version="1")
    async def one() -> None: ...

    @app.orchestrator(name="flow", version="2")
    async def two() -> None: ...

    assert app.find_orchestrator("flow").fn is two
    assert app.find_orchestrator("flow", "1").fn is one
    assert app.find_orchestrator(one).version == "1"
    with pytest.raises(OrchestratorNotRegistered, match="there is version '1', '2'"):
        app.find_orchestrator("flow", "3")

    @app.orchestrator(name="flow")
    async def unversioned() -> None: ...

    assert app.find_orchestrator("flow").fn is two
    assert app.orchestrator_of("flow", None).fn is unversioned
    assert len(app.orchestrators) == 3
    with pytest.raises(ConfigInvalid, match="orchestrator 'flow' version '2' is registered twice"):
        app.orchestrator(name="flow", version="2")(one)
    with pytest.raises(OrchestratorNotRegistered, match="there is version '1', '2', none"):
        app.find_orchestrator("flow", "9")


def test_what_is_not_registered_is_not_found():
    app = App()
    app.activity(synchronous)
    app.orchestrator(asynchronous)
    with pytest.raises(ActivityNotRegistered, match="'nothing' is not registered"):
        app.find_activity("nothing")
    with pytest.raises(ActivityNotRegistered, match="asynchronous is not registered as an act"):
        app.find_activity(asynchronous)
    with pytest.raises(OrchestratorNotRegistered, match="synchronous is not registered as an orch"):
        app.find_orchestrator(synchronous)


def test_apps_can_include_others():
    one, two = App(), App()
    one.activity(synchronous)
    one.orchestrator(asynchronous)
    two.include(one)
    two.include(one)
    assert two.find_activity(synchronous) is one.find_activity(synchronous)
    assert two.find_orchestrator("asynchronous") is one.find_orchestrator(asynchronous)
    three = App()
    three.activity(name="synchronous")(lambda: None)
    three.orchestrator(name="asynchronous")(test_coroutine)
    with pytest.raises(ConfigInvalid) as caught:
        three.include(one)
    assert len(caught.value.problems) == 2
    assert len(three.activities) == 1


async def test_coroutine() -> None: ...


test_coroutine.__test__ = False  # type: ignore[attr-defined]


def bound(fn: Callable[..., Any], payload: Raw) -> Any:
    app = App()
    app.activity(name="fn")(fn)
    return app.find_activity("fn").binding.call(ActivityContext(name="it"), payload)


def test_the_context_may_stand_anywhere_and_the_input_is_typed():
    def first(ctx: ActivityContext, order: Order) -> list[Any]:
        return [ctx.name, order]

    def last(order: Order, ctx: ActivityContext) -> list[Any]:
        return [ctx.name, order]

    def by_name(ctx, order: Order) -> list[Any]:
        return [ctx.name, order]

    def keywords(*, order: Order, context: ActivityContext) -> list[Any]:
        return [context.name, order]

    for fn in (first, last, by_name, keywords):
        assert bound(fn, raw({"id": "x"})) == ["it", Order("x")]


def test_context_and_input_may_both_be_missing():
    assert bound(lambda: "no input", raw(3)) == "no input"
    assert bound(lambda ctx: ctx.name, NULL) == "it"
    assert bound(lambda anything: anything, raw([1])) == [1]
    assert bound(lambda n=3: n, NULL) == 3
    assert bound(lambda n=3: n, raw(4)) == 4


def test_an_input_that_does_not_fit_names_the_function():
    def fn(order: Order) -> None: ...

    with pytest.raises(InputInvalid, match="input of activity 'fn': Expected `str`, got `int`"):
        bound(fn, raw({"id": 3}))


def test_results_are_typed_too():
    app = App()

    @app.activity
    def latest(ctx: ActivityContext) -> Order:
        return Order("x")

    binding = app.find_activity(latest).binding
    assert binding.takes_input is False
    assert binding.result_codec().decode(raw({"id": "x"})) == Order("x")


def test_annotations_may_be_objects_and_functions_may_have_no_module():
    def fn(context, order) -> None:
        assert (context.name, order) == ("it", Order("x"))

    fn.__annotations__ = {"context": ActivityContext, "order": Order}
    bound(fn, raw({"id": "x"}))
    fn.__module__ = "gone"
    fn.__annotations__ = {"context": "ActivityContext", "order": "dict[str, str]"}
    with pytest.raises(AssertionError):
        bound(fn, raw({"id": "x"}))


def test_annotations_may_refer_to_what_comes_later():
    app = App()

    @app.activity
    def early(later: Later) -> Later:
        return later

    assert app.find_activity(early).binding.call(None, raw({"n": 1})) == Later(1)
    assert app.find_activity(early).binding.result_codec().annotation is Later


def test_an_annotation_that_is_never_defined_is_refused_at_use():
    def lost(order: Nowhere) -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigInvalid, match="annotation cannot be resolved: name 'Nowhere'"):
        bound(lost, raw(1))
    app = App()
    app.activity(lost)
    with pytest.raises(ConfigInvalid, match="annotation cannot be resolved"):
        _ = app.find_activity(lost).binding.result_codec()


def test_an_annotation_that_cannot_be_a_payload_is_refused_at_once():
    class Odd(enum.Enum):
        A = 1.5

    def odd(order: Order) -> Odd:
        return Odd.A

    with pytest.raises(ConfigInvalid, match="result of activity 'odd'"):
        App().activity(odd)


def test_the_context_of_an_orchestrator_is_another():
    app = App()

    async def wrong(ctx: ActivityContext, order: Order) -> None: ...

    with pytest.raises(ConfigInvalid, match="more than one parameter"):
        app.orchestrator(wrong)


@dataclass
class Later:
    n: int


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_attempts": 0}, "max_attempts must be at least 1"),
        ({"max_attempts": math.inf}, "max_attempts must be a whole number"),
        ({"max_attempts": 2.5}, "max_attempts must be a whole number"),
        ({"first_interval": -1}, "first_interval must not be negative"),
        ({"backoff": 0.5}, "backoff must be a number from 1 on"),
        ({"max_interval": timedelta(-1)}, "max_interval must not be negative"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"jitter": 2}, "jitter must be between 0 and 1"),
        ({"non_retryable": "ValueError"}, "non_retryable must be a list of names"),
    ],
)
def test_a_retry_policy_that_makes_no_sense_is_refused(options: Any, problem: str):
    with pytest.raises(ConfigInvalid, match=problem):
        RetryPolicy(**options)


def test_a_retry_policy_survives_history():
    policy = RetryPolicy(
        max_attempts=4,
        first_interval=timedelta(seconds=0.5),
        max_interval=None,
        timeout=timedelta(hours=1),
        non_retryable=("A",),
    )
    retry = policy.as_retry()
    assert retry == Retry(
        max_attempts=4,
        first_interval=500_000,
        timeout=3_600_000_000,
        jitter=0.1,
        non_retryable=("A",),
    )
    assert RetryPolicy.from_retry(retry) == policy


def test_what_an_activity_knows(caplog: pytest.LogCaptureFixture):
    beats: list[Any] = []

    class Control:
        def heartbeat(self, details: Raw) -> None:
            beats.append(value_of(details))

        def is_cancelled(self) -> bool:
            return True

    ctx = ActivityContext(instance_id="i", execution_id="e", name="a", task_id=3, control=Control())
    ctx.heartbeat({"done": 5})
    ctx.heartbeat()
    assert beats == [{"done": 5}, None]
    assert ctx.is_cancelled
    assert ctx.idempotency_key == "i:e:3"
    ctx.logger.warning("hm")
    ctx.logger.warning("again")
    assert caplog.messages[0] == "hm [instance_id=i activity=a attempt=1]"


def test_an_activity_context_made_by_hand_works():
    ctx = ActivityContext()
    ctx.heartbeat("x")
    assert not ctx.is_cancelled


def test_orchestration_contexts_are_recognised_by_name_too():
    app = App()

    @app.orchestrator
    async def flow(order: Order, context: OrchestrationContext) -> None: ...

    assert app.find_orchestrator(flow).binding.takes_input
