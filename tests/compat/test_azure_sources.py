"""What `from_azure` takes: apps, blueprints, single functions, modules."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func
import pytest

from shardrt import App
from shardrt.compat.azure import from_azure
from shardrt.compat.azure.http_calls import HTTP_ACTIVITY
from shardrt.compat.azure.registering import functions_of
from shardrt.errors import ConfigInvalid
from shardrt.host.imports import import_app
from shardrt.testing import Environment, run_virtual
from tests.compat.apps import fan_out

if TYPE_CHECKING:
    from collections.abc import Iterable

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
blueprint = df.Blueprint()


@blueprint.activity_trigger(input_name="city")
def greet(city: str) -> str:
    return f"Hello {city}!"


@blueprint.orchestration_trigger(context_name="context")
def greetings(context: Any) -> Any:
    return (yield context.task_all([context.call_activity(greet, "Rome")]))


app.register_functions(blueprint)


@app.route(route="ping")
def ping(req: func.HttpRequest) -> str:
    return "pong"


def module(**contents: Any) -> ModuleType:
    made = ModuleType("made")
    vars(made).update(contents)
    return made


def names(found: App) -> tuple[set[str], set[str]]:
    activities = {each.name for each in found.activities} - {HTTP_ACTIVITY}
    return {each.name for each in found.orchestrators}, activities


BOTH = ({"greetings"}, {"greet"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (blueprint, BOTH),
        (greet, (set(), {"greet"})),
        (greetings, ({"greetings"}, set())),
        (module(bp=blueprint, greet=greet, other=7), BOTH),
        (module(greet=greet, greetings=greetings), BOTH),
    ],
    ids=["blueprint", "activity", "orchestrator", "module", "loose functions"],
)
def test_what_is_decorated_is_registered_once(source: Any, expected: Iterable[set[str]]) -> None:
    assert names(from_azure(source)) == expected
    assert from_azure(source) is from_azure(source)


def test_functions_of_several_modules_run_in_an_app_of_ours() -> None:
    async def test() -> Any:
        together = App()
        for each in (module(app=app, bp=blueprint, greet=greet), fan_out):
            together.include(from_azure(each))
        async with Environment(together) as env:
            return await (await env.client.start("greetings")).result()

    assert run_virtual(test()) == ["Hello Rome!"]


def test_a_module_with_an_app_leaves_it_to_the_app_who_may_call_its_functions() -> None:
    found = functions_of(module(blueprint=blueprint, ping=ping, app=app))
    (route,) = (each.get_trigger() for each in found if each.is_http_function())
    assert route.auth_level is func.AuthLevel.ANONYMOUS


def test_a_host_serves_a_blueprint() -> None:
    assert names(import_app(f"{__name__}:blueprint")) == BOTH


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (lambda: None, "<lambda>.* has no trigger"),
        (module(other=7), "module 'made' has no function"),
    ],
)
def test_what_is_not_decorated_is_named(source: Any, problem: str) -> None:
    with pytest.raises(ConfigInvalid, match=problem):
        from_azure(source)
