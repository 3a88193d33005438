"""What a function of an Azure app is called, and what it returns."""

from __future__ import annotations

from typing import Any

from azure.durable_functions.models.utils.type_discovery import activity_output_type
from azure.functions.decorators.function_app import FunctionBuilder


def name_of(called: Any, trigger: str) -> str:
    """Return the name of a function, which code refers to by itself or by its name.

    Raises:
        ValueError: it is a function with another trigger, or with none.
    """
    if isinstance(called, str):
        return called
    if not isinstance(called, FunctionBuilder):
        raise ValueError(f"{called!r} has no {trigger}: decorate it, or give a name")  # noqa: TRY004
    function = called._function  # noqa: SLF001 - as Azure's own package does
    found = function.get_trigger()
    name = str(function.get_function_name())
    if found is None or found.get_binding_name() != trigger:
        kind = "none" if found is None else found.get_binding_name()
        raise ValueError(f"function {name!r} must have the trigger {trigger}, not {kind}")
    return name


def result_type_of(called: Any) -> type | None:
    """Return the class that a function says it returns, if code refers to it by itself."""
    found: type | None = activity_output_type(called)
    return found
