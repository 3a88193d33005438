"""What an orchestrator can ask of entities: the part of `OrchestrationContext` about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from shardrt.core.history import EntityOperationCalled, EntityOperationSignaled
from shardrt.errors import EntityFailed, EntityNotRegistered, InputInvalid
from shardrt.orchestration.critical_section import CriticalSection
from shardrt.orchestration.entity_context import moment
from shardrt.orchestration.entity_id import (
    EntityId,
    EntityRef,
    as_entity_id,
    operation_name,
    result_codec_of_operation,
)
from shardrt.orchestration.facts import ExecutionFacts
from shardrt.orchestration.futures import CallFuture
from shardrt.orchestration.payload import ANY, encode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from datetime import datetime, timedelta

    from shardrt.core.history import ExecutionStarted
    from shardrt.orchestration.definitions import Registry
    from shardrt.orchestration.entity_id import OperationRef
    from shardrt.orchestration.loop import OrchestrationLoop
    from shardrt.orchestration.payload import Codec

E = TypeVar("E")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


class EntityCalls(ExecutionFacts):
    """See the module."""

    __slots__ = ("_loop", "_registry")

    def __init__(
        self,
        *,
        instance_id: str,
        execution_id: str,
        started: ExecutionStarted,
        registry: Registry,
        loop: OrchestrationLoop,
    ) -> None:
        super().__init__(
            instance_id=instance_id,
            execution_id=execution_id,
            started=started,
            ledger=loop.ledger,
        )
        self._registry = registry
        self._loop = loop

    @overload
    def call_entity(
        self,
        entity: EntityRef,
        operation: Callable[[E], Awaitable[R]],
        input: None = None,
        *,
        result_type: None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_entity(
        self,
        entity: EntityRef,
        operation: Callable[[E, I], Awaitable[R]],
        input: I,
        *,
        result_type: None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_entity(
        self,
        entity: EntityRef,
        operation: Callable[[E], R],
        input: None = None,
        *,
        result_type: None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_entity(
        self,
        entity: EntityRef,
        operation: Callable[[E, I], R],
        input: I,
        *,
        result_type: None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,
        *,
        result_type: type[R],
    ) -> asyncio.Future[R]: ...
    @overload
    def call_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,
        *,
        result_type: Any = None,
    ) -> asyncio.Future[Any]: ...
    def call_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,  # noqa: A002
        *,
        result_type: Any = None,
    ) -> asyncio.Future[Any]:
        """Have an entity do something and return its result to be. It raises `EntityFailed`.

        Args:
            entity: its id. It need not exist: then it has no state yet.
            operation: the name, or the method of the class.
            input: of the operation.
            result_type: what to make of the result; else the operation's annotation.

        Raises:
            InputInvalid: the input has no JSON form, or the id is none.
            LockViolation: a critical section does not allow it.
        """
        entity_id, name = as_entity_id(entity), operation_name(operation)
        payload = encode(input, "input of operation", name)
        ledger = self._ledger
        section = ledger.section
        if section is not None:
            section.check_call(entity_id)
        task_id = ledger.new_id()
        within = "" if section is None else section.name
        ledger.emit(EntityOperationCalled(task_id, entity_id, name, payload, within))
        future: CallFuture[Any] = CallFuture(loop=self._loop)
        future.ledger = ledger
        future.task_id = task_id
        future.name = f"{entity_id} {name}"
        future.failed = EntityFailed
        future.codec = self._result_codec(entity_id, operation, result_type)
        ledger.pending[task_id] = future
        if section is not None:
            section.note_call(entity_id, future)
        return future

    def _result_codec(
        self, entity_id: str, operation: OperationRef, result_type: Any
    ) -> Codec[Any]:
        if result_type is None and isinstance(operation, str):
            try:
                known = self._registry.find_entity(EntityId.parse(entity_id).name)
            except EntityNotRegistered:
                return ANY  # it may live elsewhere
            return known.result_codec(operation)
        return result_codec_of_operation(operation, result_type)

    def signal_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: object = None,  # noqa: A002
        *,
        at: datetime | timedelta | None = None,
    ) -> None:
        """Have an entity do something; nobody hears how it went. Takes effect with this turn.

        Args:
            entity: its id.
            operation: the name, or the method of the class.
            input: of the operation.
            at: not before this time, or this long from now. Naive datetimes are UTC.
        """
        entity_id, name = as_entity_id(entity), operation_name(operation)
        payload = encode(input, "input of operation", name)
        ledger = self._ledger
        if ledger.section is not None:
            ledger.section.check_signal(entity_id)
        fire_at = None if at is None else moment(at, ledger.now)
        task_id = ledger.new_id()
        ledger.emit(EntityOperationSignaled(task_id, entity_id, name, payload, fire_at))

    def lock(self, *entities: EntityRef) -> CriticalSection:
        """Return a critical section over entities, for ``async with``.

        Inside, nobody else's operations are carried out on them. They are released at the end
        of the block, and however the orchestration ends.

        Raises:
            InputInvalid: no entity is given, or an id is none.
        """
        if not entities:
            raise InputInvalid("ctx.lock needs at least one entity")
        ids = tuple(sorted({as_entity_id(each) for each in entities}))
        return CriticalSection(ids, self._execution_id, self._ledger, self._loop)
