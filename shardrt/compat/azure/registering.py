"""From the functions that an Azure app has registered to an `App`.

They return JSON already, and say `Any`: code of ours that calls them gets plain values.
"""

from __future__ import annotations

import functools
import inspect
import logging
from asyncio import CancelledError
from inspect import Parameter, Signature
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from azure.functions import FunctionRegister
from azure.functions.decorators.function_app import DecoratorApi, FunctionBuilder
from msgspec import Raw  # noqa: TC002 - bindings evaluate the annotations

from shardrt.compat.azure.context import DurableOrchestrationContext
from shardrt.compat.azure.entities import DurableEntityContext
from shardrt.compat.azure.http_calls import HTTP_ACTIVITY, http_activity
from shardrt.compat.azure.tasks import Task
from shardrt.compat.azure.values import from_payload, to_payload
from shardrt.errors import ConfigInvalid
from shardrt.orchestration.app import App
from shardrt.orchestration.context import OrchestrationContext

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from shardrt.orchestration.activity import ActivityContext
    from shardrt.orchestration.entity_context import EntityContext

logger = logging.getLogger(__name__)

_PARTS = (DecoratorApi, FunctionBuilder)
_read: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()
_apps: WeakKeyDictionary[Any, App] = WeakKeyDictionary()


def functions_of(source: Any) -> list[Any]:
    """Return the functions of an app, which can be asked for them only once.

    Raises:
        ConfigInvalid: there are none in it.
    """
    if source not in _read:
        _read[source] = _functions_in(source)
    return _read[source]


def _functions_in(source: Any) -> list[Any]:
    if isinstance(source, FunctionRegister):
        found: list[Any] = source.get_functions()
        return found
    if isinstance(source, DecoratorApi):
        return [each.build() for each in source._function_builders]  # noqa: SLF001 - as apps do
    if isinstance(source, FunctionBuilder):
        return [source.build()]
    if not isinstance(source, ModuleType):
        raise ConfigInvalid(f"{source!r} has no trigger of Azure's: decorate it")
    parts = [each for each in vars(source).values() if isinstance(each, _PARTS)]
    # Apps first: they know who may call their functions. What is in several counts once.
    parts.sort(key=lambda each: not isinstance(each, FunctionRegister))
    functions = {id(function): function for each in parts for function in functions_of(each)}
    if not functions:
        raise ConfigInvalid(f"module {source.__name__!r} has no function with a trigger of Azure's")
    return list(functions.values())


def from_azure(source: Any) -> App:
    """Return an `App` with the orchestrators, activities and entities of an Azure app.

    Args:
        source: a `df.DFApp` or `func.FunctionApp`, with all its blueprints registered; or a
            blueprint, a decorated function, or a module, of which everything decorated counts.
            The same one always gives the same `App`.

    Raises:
        ConfigInvalid: it is none of these or has no functions, or an activity needs a binding
            that there is none of here.
    """
    if source not in _apps:
        _apps[source] = _app_of(functions_of(source))
    return _apps[source]


def _app_of(functions: list[Any]) -> App:
    app = App()
    app.activity(name=HTTP_ACTIVITY)(http_activity)
    for function in functions:
        trigger, user_code = function.get_trigger(), function.get_user_function()
        kind = trigger.get_binding_name()
        name = function.get_function_name()
        if kind == "orchestrationTrigger":
            for each in _names(name, trigger.orchestration):
                app.orchestrator(name=each)(_orchestrator(user_code))
        elif kind == "activityTrigger":
            for each in _names(name, trigger.activity):
                app.activity(name=each)(_activity(function))
        elif kind == "entityTrigger":
            app.entity(name=trigger.entity_name or name)(_entity(user_code.entity_function))
        elif kind != "httpTrigger":
            logger.warning("function %r is not run: nothing here has the trigger %s", name, kind)
    return app


def _names(name: str, given: str | None) -> list[str]:
    """Return the names that a function is called by: that in its trigger, and its own."""
    return list(dict.fromkeys([name, given or name]))


# -- orchestrators --------------------------------------------------------------------------------


def _orchestrator(handle: Any) -> Callable[..., Any]:
    user_code = handle.orchestrator_function
    input_type = getattr(handle, "_df_input_type", None)

    @functools.wraps(user_code)
    async def run(ctx: OrchestrationContext) -> Any:
        context = DurableOrchestrationContext(ctx, input_type)
        result = user_code(context)
        if inspect.isgenerator(result):
            result = await drive(result, context)
        with ctx.unguarded():  # the codec reads a variable of the environment
            return to_payload(result, "result")

    # Not that of the user's code: by this, calls are bound.
    parameter = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=OrchestrationContext)
    run.__signature__ = Signature([parameter])  # type: ignore[attr-defined]
    return run


async def drive(generator: Generator[Any, Any, Any], context: DurableOrchestrationContext) -> Any:
    """Await what a generator yields, send it the results, and return what it returns."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                task = generator.send(value) if error is None else generator.throw(error)
            except StopIteration as stop:
                return stop.value
            if context.will_continue_as_new:
                return None
            value, error = None, None
            if not isinstance(task, Task):
                error = TypeError(f"an orchestrator yields tasks, not {task!r}")
                continue
            try:
                value = await task.outcome()
            except CancelledError as canceled:  # from outside: it may clean up
                error = canceled
            except Exception as raised:  # noqa: BLE001 - the generator may catch it
                error = raised
    finally:
        generator.close()


# -- activities -----------------------------------------------------------------------------------


def _activity(function: Any) -> Callable[..., Any]:
    user_code, trigger = function.get_user_function(), function.get_trigger()
    name = function.get_function_name()
    takes_context = "context" in inspect.signature(user_code).parameters
    takes_context &= trigger.name != "context"
    for binding in function.get_bindings():
        if binding is not trigger and binding.name != trigger.name:
            kind = binding.get_binding_name()
            raise ConfigInvalid(f"activity {name!r} needs the binding {kind}, which is not here")

    def arguments(ctx: ActivityContext, payload: Raw) -> dict[str, Any]:
        given = {trigger.name: from_payload(payload)}
        if takes_context:
            invocation_id = f"{ctx.instance_id}:{ctx.task_id}:{ctx.attempt}"
            given["context"] = SimpleNamespace(function_name=name, invocation_id=invocation_id)
        return given

    if inspect.iscoroutinefunction(user_code):

        async def run_async(ctx: ActivityContext, payload: Raw) -> Any:
            return to_payload(await user_code(**arguments(ctx, payload)), "result")

        return run_async

    def run(ctx: ActivityContext, payload: Raw) -> Any:
        return to_payload(user_code(**arguments(ctx, payload)), "result")

    return run


# -- entities -------------------------------------------------------------------------------------


def _entity(user_code: Callable[[Any], object]) -> Callable[..., Any]:
    def operate(ctx: EntityContext, payload: Raw) -> Any:
        context = DurableEntityContext(ctx, payload)
        user_code(context)
        return context.finish()

    return operate
