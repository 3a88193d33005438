"""Entities as users write them: classes with state and operations, or one function.

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

The fields are the state, public methods are the operations. An operation runs within one turn
and alone: it may be `async def`, but it cannot wait for anything. What it asks of others, by its
`EntityContext`, happens if it returns; if it raises, nothing of it has happened.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardrt.errors import ConfigInvalid
from shardrt.orchestration.binding import Binding
from shardrt.orchestration.entity_context import EntityContext
from shardrt.orchestration.entity_id import OPERATION, check_entity_name
from shardrt.orchestration.payload import ANY, Codec, codec_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class OperationDefinition:
    """An operation of a class."""

    fn: Callable[..., Any]
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityDefinition:
    """An entity as registered."""

    name: str
    """In lower case."""
    target: Callable[..., Any] = field(repr=False)
    """The class or function."""
    operations: Mapping[str, OperationDefinition] = field(default_factory=dict, repr=False)
    """Of a class. A function has any."""
    state_codec: Codec[Any] = field(default=ANY, repr=False, compare=False)
    binding: Binding | None = field(default=None, repr=False, compare=False)
    """Of a function."""

    def result_codec(self, operation: str) -> Codec[Any]:
        """Return how to decode what an operation returns."""
        known = self.operations.get(operation)
        binding = self.binding if known is None else known.binding
        return ANY if binding is None else binding.result_codec()


def entity_of(
    target: Callable[..., Any], names: Mapping[str, Any], name: str | None = None
) -> EntityDefinition:
    """Return the definition of a class or function.

    Raises:
        ConfigInvalid: it cannot be an entity.
    """
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        raise ConfigInvalid(f"@app.entity goes on a class or function, not on {target!r}")
    name = target.__name__ if name is None else name
    check_entity_name(name)
    what = f"entity {name!r}"
    if not isinstance(target, type):
        binding = Binding(target, EntityContext, what, names)
        return EntityDefinition(name=name.lower(), target=target, binding=binding)
    if not _has_fields(target):
        dataclasses.dataclass(target)
    operations = {
        each: OperationDefinition(fn, _binding_of(fn, f"operation {each!r} of {what}", names))
        for each, fn in inspect.getmembers(target, inspect.isfunction)
        if not each.startswith("_")
    }
    if not operations:
        raise ConfigInvalid(f"{what} has no operations: give it public methods")
    return EntityDefinition(
        name=name.lower(), target=target, operations=operations, state_codec=codec_for(target)
    )


def _has_fields(cls: type) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        or hasattr(cls, "__struct_fields__")
        or hasattr(cls, "__attrs_attrs__")
        or hasattr(cls, "model_dump")
    )


def _binding_of(fn: Callable[..., Any], what: str, names: Mapping[str, Any]) -> Binding:
    # Bound to something, so that `self` is not taken for the input.
    binding = Binding(types.MethodType(fn, what), EntityContext, what, names)
    fn.__dict__.setdefault(OPERATION, binding)
    return binding
