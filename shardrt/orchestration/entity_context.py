"""`EntityContext`: what an operation of an entity can know and ask for."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from shardrt.core import entity as en
from shardrt.core.history import NULL
from shardrt.core.ids import derived_id
from shardrt.errors import InputInvalid
from shardrt.orchestration.definitions import DEFINITION
from shardrt.orchestration.entity_id import (
    EntityRef,
    OperationRef,
    as_entity_id,
    operation_name,
)
from shardrt.orchestration.facts import EPOCH, MICROSECOND
from shardrt.orchestration.payload import codec_for, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from shardrt.core.entity import EntityWork, Operation, Output, State
    from shardrt.orchestration.definitions import OrchestratorDefinition

logger = logging.getLogger("shardrt.entity")

T = TypeVar("T")


class EntityContext:
    """One operation, as the entity sees it. Made by the runtime, never by users."""

    __slots__ = ("_operation", "_sent", "_work", "deleted", "outputs", "state")

    def __init__(self, work: EntityWork, operation: Operation, state: State, sent: int) -> None:
        self._work = work
        self._operation = operation
        self.state: State = state
        """The state as JSON; for `get_state` and `set_state`."""
        self.deleted = False
        self.outputs: list[Output] = []
        """What this operation asked for."""
        self._sent = sent
        """How much the operations before it asked for."""

    @property
    def entity_id(self) -> str:
        """The id, ``@name@key``."""
        return self._work.instance_id

    @property
    def name(self) -> str:
        return self._work.name

    @property
    def key(self) -> str:
        return en.name_and_key(self._work.instance_id)[1]

    @property
    def operation(self) -> str:
        """The name of the operation."""
        return self._operation.name

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of this turn, aware, in UTC."""
        return EPOCH + self._work.at * MICROSECOND

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        return logging.LoggerAdapter(logger, {"entity_id": self.entity_id})

    @overload
    def get_input(self, type: type[T], /) -> T: ...
    @overload
    def get_input(self, type: Any = Any, /) -> Any: ...
    def get_input(self, type: Any = Any, /) -> Any:  # noqa: A002
        """Return the input of the operation as `type`.

        Raises:
            InputInvalid: it does not fit.
        """
        what = f"input of operation {self.operation!r}"
        return codec_for(type).decode(self._operation.input, what)

    # -- state ---------------------------------------------------------------------------------

    @property
    def has_state(self) -> bool:
        """Whether there was a state when the operation began, or is one set since."""
        return bool(self.state)

    @overload
    def get_state(self, type: type[T], /, default: T) -> T: ...
    @overload
    def get_state(self, type: Any = Any, /, default: Any = None) -> Any: ...
    def get_state(self, type: Any = Any, /, default: Any = None) -> Any:  # noqa: A002
        """Return the state as `type`; `default` if there is none. For entities of one function."""
        if not self.state:
            return default
        return codec_for(type).decode(self.state[0], f"state of {self.entity_id}")

    def set_state(self, value: object) -> None:
        """Set the state of an entity of one function; None is no state."""
        payload = encode(value, "state of", self.entity_id)
        self.state = () if payload == NULL else (payload,)
        self.deleted = False

    def delete_state(self) -> None:
        """Leave the entity without a state, as if it had never had one."""
        self.state = ()
        self.deleted = True

    # -- others --------------------------------------------------------------------------------

    def signal(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: object = None,  # noqa: A002
        *,
        at: datetime | timedelta | None = None,
    ) -> None:
        """Have another entity, or this one, do something; nobody hears how it went.

        Args:
            entity: its id.
            operation: the name, or the method of the class.
            input: of the operation.
            at: not before this time, or this long from now. Naive datetimes are UTC.
        """
        name = operation_name(operation)
        payload = encode(input, "input of operation", name)
        fire_at = None if at is None else moment(at, self._work.at)
        self.outputs.append(en.SignalSent(as_entity_id(entity), name, payload, fire_at))

    def start_orchestration(
        self,
        orchestrator: Callable[..., Any] | str,
        input: object = None,  # noqa: A002
        *,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> str:
        """Start an orchestration and return its id; nobody hears how it goes.

        If that id is taken by an instance that has not ended, nothing is started.

        Args:
            orchestrator: the function, or the name it is registered by.
            input: of the orchestration.
            instance_id: default: a new one.
            version: of the orchestrator.
        """
        if isinstance(orchestrator, str):
            name = orchestrator
        else:
            known: OrchestratorDefinition | None = getattr(orchestrator, DEFINITION, None)
            name = orchestrator.__name__ if known is None else known.name
            version = version if known is None or version is not None else known.version
        payload: Raw = encode(input, "input of orchestrator", name)
        work = self._work
        if instance_id is None:
            number = self._sent + len(self.outputs)
            instance_id = derived_id(work.instance_id, work.at, work.turn, number)
        elif en.is_entity_id(instance_id):
            raise InputInvalid(f"{instance_id!r} is the id of an entity")
        self.outputs.append(en.OrchestrationStarted(instance_id, name, payload, version))
        return instance_id


def moment(when: datetime | timedelta, now: int) -> int:
    """Return a time in microseconds; a timedelta counts from `now`."""
    if isinstance(when, timedelta):
        return now + when // MICROSECOND
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND
