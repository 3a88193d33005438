"""Apps written for Azure, unchanged, with the results that their comments tell."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func
import pytest

from shardrt.compat.azure import from_azure
from shardrt.errors import NonDeterminism
from shardrt.testing import Environment, replay, run_virtual
from tests.compat.apps import (
    chaining,
    counter,
    eternal,
    fan_out,
    human,
    monitor,
    retries,
    sub_orchestrations,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HOUR = timedelta(hours=1)


def in_environment(
    module: Any,
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Run a test with an environment that serves the app of a module, in virtual time.

    Afterwards, the history of every instance must lead its code the same way again.
    """

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def run() -> None:
            async def served() -> None:
                app = from_azure(module.app)
                async with Environment(app) as env:
                    await test(env)
                    ids = await ids_of(env)
                    assert ids
                    for instance_id in ids:
                        replay(app, await env.client.export(instance_id))

            run_virtual(served())

        return run

    return decorate


async def ids_of(env: Environment) -> list[str]:
    """Return the ids of all instances, once the read model has had time to learn of them."""
    for _ in range(3):
        await env.advance(timedelta(seconds=2))
    return [each.instance_id async for each in env.client.list()]


async def result(env: Environment, name: str, given: Any, instance_id: str | None = None) -> Any:
    return await (await env.client.start(name, given, instance_id=instance_id)).result()


@in_environment(chaining)
async def test_function_chaining(env: Environment) -> None:
    assert await result(env, "quote", "tea") == "TEA for you, at 3.50"


@in_environment(fan_out)
async def test_fan_out_and_fan_in(env: Environment) -> None:
    assert await result(env, "back_up", "docs") == 60
    assert await result(env, "back_up", "empty") == 0
    assert await result(env, "back_up", "broken") == "no disk: b"


@in_environment(human)
async def test_human_interaction_with_a_timeout(env: Environment) -> None:
    for answer, outcome in ((True, "desk: bought"), (False, "desk: refused")):
        handle = await env.client.start("approval", {"item": "desk"})
        await env.advance(timedelta(days=2))
        await handle.raise_event("decision", {"approved": answer})
        assert await handle.result() == outcome
        kinds = [each.kind for each in await env.client.history(handle.instance_id)]
        assert "TimerCanceled" in kinds
    began = env.now
    assert await result(env, "approval", {"item": "desk"}) == "desk: escalated after 72 h"
    assert timedelta(days=3) <= env.now - began < timedelta(days=3, minutes=1)


@in_environment(monitor)
async def test_a_monitor(env: Environment) -> None:
    began = env.now
    handle = await env.client.start("watch", {"city": "Bergen", "clear_at": 4})
    await env.advance(HOUR)
    found = await env.client.get(handle.instance_id)
    assert found is not None
    assert found.custom_status == 3
    assert await handle.result() == "clear after 3 looks in vain"
    assert 1.5 * HOUR <= env.now - began < 1.6 * HOUR
    gave_up = await result(env, "watch", {"city": "Bergen", "clear_at": 99})
    assert gave_up == "gave up after 12 looks"


@in_environment(sub_orchestrations)
async def test_sub_orchestrations(env: Environment) -> None:
    assert await result(env, "provision", ["lamp", "lock"], "p") == [
        ["lamp:1", "p:lamp", "p"],
        ["lock:1", "p:lock", "p"],
    ]
    assert await result(env, "provision", ["lamp", "brick"]) == "brick cannot be set up"


@in_environment(retries)
async def test_retries(env: Environment) -> None:
    for name, good_at, outcome, seconds in [
        ("deliver", 3, "there at attempt 3", 10),
        ("deliver", 9, "gave up: attempt 4 failed", 15),
        ("deliver_all", 2, "there at attempt 2", 1),
    ]:
        began = env.now
        assert await result(env, name, good_at) == outcome
        took = (env.now - began).total_seconds()
        assert seconds <= took < seconds + 1


@in_environment(counter)
async def test_a_counter_entity(env: Environment) -> None:
    assert await result(env, "count", "jar") == [0, 5, 12, "no operation 'jump'"]
    found = await env.client.get_entity("@counter@jar")
    assert found is not None
    assert found.state == {"value": 12}
    await env.client.signal_entity("@counter@jar", "reset")
    assert await env.client.call_entity("@counter@jar", "add", 1) == 1
    await env.client.signal_entity("@counter@jar", "reset")
    await env.settle()
    assert await env.client.get_entity("@counter@jar") is None


@in_environment(counter)
async def test_two_entities_are_locked(env: Environment) -> None:
    await env.client.call_entity("@counter@a", "add", 10)
    await env.client.call_entity("@counter@b", "add", 1)
    assert await result(env, "transfer", ["a", "b"]) == [6, 5]
    assert await env.client.call_entity("@counter@a", "get") == 6


@in_environment(eternal)
async def test_an_eternal_orchestration(env: Environment) -> None:
    eternal.cleaned.clear()
    handle = await env.client.start("clean_up", 0)
    await env.advance(3.5 * HOUR)
    await handle.raise_event("stop")
    assert await handle.result() == 3
    assert eternal.cleaned == [0, 1, 2, 3]


@in_environment(values)
async def test_values(env: Environment) -> None:
    given = {"name": "Ada", "born": 1815}
    expected = {
        "greeting": "Ada (1815)",
        "same": True,
        "text": "5",
        "nested": {"a": [1, None]},
        "status": "done",
    }
    assert await result(env, "introduce", given) == expected
    # As Azure's client sends it.
    assert await result(env, "introduce", json.dumps(given)) == expected
    assert await result(env, "echo", "plain words") == "plain words"
    assert await result(env, "echo", json.dumps("5")) == "5"


@in_environment(human)
async def test_a_crash_in_the_middle_changes_nothing(env: Environment) -> None:
    handle = await env.client.start("approval", {"item": "desk"})
    await env.advance(24 * HOUR)
    await env.crash()
    await handle.raise_event("Decision", {"approved": True})
    assert await handle.result() == "desk: bought"


@in_environment(chaining)
async def test_other_code_than_the_history_is_noticed(env: Environment) -> None:
    handle = await env.client.start("quote", "tea")
    await handle.result()
    exported = await env.client.export(handle.instance_id)
    with pytest.raises(NonDeterminism, match="look_up"):
        replay(from_azure(another_chain()), exported)


def test_a_function_app_with_a_blueprint_is_one_too() -> None:
    app = func.FunctionApp()
    devices = df.Blueprint()

    @devices.activity_trigger(input_name="name")
    def blink(name: str) -> str:
        return name

    app.register_functions(devices)
    assert "blink" in {each.name for each in from_azure(app).activities}


def another_chain() -> Any:
    other = df.DFApp()

    @other.orchestration_trigger(context_name="context")
    def quote(context: Any) -> Any:
        yield context.call_activity("price", context.get_input())

    return other
