"""The entities of an `App`, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

from shardrt.errors import ConfigInvalid, EntityNotRegistered
from shardrt.orchestration.binding import names_of_caller
from shardrt.orchestration.entity import EntityDefinition, entity_of
from shardrt.orchestration.entity_id import ENTITY, name_of_entity

AnyEntity = TypeVar("AnyEntity", bound=Callable[..., Any])


class EntityRegistry:
    """The part of an app that knows entities."""

    def __init__(self) -> None:
        self._entities: dict[str, EntityDefinition] = {}

    @overload
    @dataclass_transform()
    def entity(self, target: AnyEntity, /) -> AnyEntity: ...
    @overload
    def entity(self, /, *, name: str | None = None) -> Callable[[AnyEntity], AnyEntity]: ...
    def entity(
        self, target: Callable[..., Any] | None = None, /, *, name: str | None = None
    ) -> Any:
        """Register an entity; bare or with arguments.

        A class: its fields are the state, its public methods the operations. Unless it is a
        dataclass already, or of msgspec, attrs or pydantic, it is made one. It must be possible
        to make one without arguments, for an entity that has no state yet. Or a function, which
        is called for any operation, with an `EntityContext`.

        Args:
            target: the class or function, when used bare.
            name: default: that of the class or function. Names do not distinguish case.

        Raises:
            ConfigInvalid: the name is taken, or the class or function cannot be used.
        """
        names = names_of_caller(1)

        def register(target: AnyEntity) -> AnyEntity:
            definition = entity_of(target, names, name)
            if definition.name in self._entities:
                raise ConfigInvalid(f"entity {definition.name!r} is registered twice")
            self._entities[definition.name] = definition
            with contextlib.suppress(AttributeError, TypeError):
                setattr(target, ENTITY, definition.name)
            return target

        return register if target is None else register(target)

    @property
    def entities(self) -> list[EntityDefinition]:
        """All of them, in order of registration."""
        return list(self._entities.values())

    def find_entity(self, entity: Callable[..., Any] | str) -> EntityDefinition:
        """Return the entity of that name, class or function.

        Raises:
            EntityNotRegistered: there is none.
        """
        name = entity if isinstance(entity, str) else name_of_entity(entity)
        found = self._entities.get(name.lower())
        if found is None:
            raise EntityNotRegistered(f"no entity {name!r} is registered")
        return found

    def _taken_entities(self, other: EntityRegistry) -> list[str]:
        mine = self._entities
        return [
            f"entity {name!r} is registered twice"
            for name, definition in other._entities.items()
            if mine.get(name, definition).target is not definition.target
        ]
