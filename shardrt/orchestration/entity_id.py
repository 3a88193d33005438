"""Which entity, and which of its operations: as users say it, and as the core does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from shardrt.core import entity as en
from shardrt.errors import ConfigInvalid, InputInvalid
from shardrt.orchestration.payload import ANY, Codec, codec_for

if TYPE_CHECKING:
    from shardrt.orchestration.binding import Binding

ENTITY = "__shardrt_entity__"
"""Attribute of a registered class or function: the name of the entity."""
OPERATION = "__shardrt_operation__"
"""Attribute of a method of a registered class: its `Binding`. By it a client, which knows no
app, finds the type of the result."""

EntityRef: TypeAlias = "EntityId | str"
OperationRef: TypeAlias = Callable[..., Any] | str


@dataclass(frozen=True, init=False, order=True)
class EntityId:
    """Which entity: its name, which does not distinguish case, and a key.

    Args:
        entity: the registered class or function, or the name.
        key: anything, such as an account number.
    """

    name: str
    key: str

    def __init__(self, entity: Callable[..., Any] | str, key: str) -> None:
        name = entity if isinstance(entity, str) else name_of_entity(entity)
        check_entity_name(name)
        object.__setattr__(self, "name", name.lower())
        object.__setattr__(self, "key", key)

    def __str__(self) -> str:
        return en.entity_id(self.name, self.key)

    @classmethod
    def parse(cls, text: str) -> EntityId:
        """Return what ``@name@key`` stands for.

        Raises:
            InputInvalid: it is not of that form.
        """
        if not isinstance(text, str) or not en.is_entity_id(text):
            raise InputInvalid(f"{text!r} is no entity id: write @name@key, or use EntityId")
        return cls(*en.name_and_key(text))


def as_entity_id(entity: EntityRef) -> str:
    """Return the id as text, with its name in lower case."""
    return str(entity if isinstance(entity, EntityId) else EntityId.parse(entity))


def operation_name(operation: OperationRef) -> str:
    """Return the name of an operation given by name or as the method."""
    name = operation if isinstance(operation, str) else getattr(operation, "__name__", "")
    if not name:
        raise InputInvalid(f"{operation!r} is no operation: give its name or its method")
    return name


def name_of_entity(entity: Callable[..., Any]) -> str:
    """Return the name that a class or function is registered by, or would be."""
    name = getattr(entity, ENTITY, None) or getattr(entity, "__name__", None)
    if not isinstance(name, str):
        raise ConfigInvalid(f"not an entity: {entity!r}; give its class, function or name")
    return name


def check_entity_name(name: str) -> None:
    """Refuse a name that would make ids ambiguous, or is reserved.

    Raises:
        ConfigInvalid: it is empty, has an @ in it, or begins with a dollar sign.
    """
    if not name or "@" in name or name[0] == "$" or not name.isprintable():
        raise ConfigInvalid(f"{name!r} is no name for an entity")


def result_codec_of_operation(operation: OperationRef, result_type: Any) -> Codec[Any]:
    """Return how to decode what an operation returns, as far as is known here."""
    if result_type is not None:
        return codec_for(result_type)
    binding: Binding | None = getattr(operation, OPERATION, None)
    return ANY if binding is None else binding.result_codec()
