"""Runs entities: operations in, steps out.

Between operations an entity is its state as JSON and nothing else, so an operation that raises
is undone by going on with what was there before it. Nothing here raises because of what user
code does.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from shardrt.core.entity import EntityStep, OperationResult, OrchestrationStarted, SignalSent
from shardrt.errors import (
    EntityNotRegistered,
    InputInvalid,
    OperationSuspended,
    PayloadTooLarge,
)
from shardrt.orchestration.entity_context import EntityContext
from shardrt.orchestration.failure import failure_of
from shardrt.orchestration.middleware import ExecutionInfo, ExecutionKind, layered
from shardrt.orchestration.payload import encode

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from msgspec import Raw

    from shardrt.core.entity import EntityWork, Operation, Output, State
    from shardrt.core.history import Failure
    from shardrt.orchestration.definitions import Registry
    from shardrt.orchestration.entity import EntityDefinition
    from shardrt.orchestration.middleware import ExecutionMiddleware
    from shardrt.orchestration.sealing import Sealer

logger = logging.getLogger(__name__)


class Limits(Protocol):
    """What code may bring in: each method returns what is wrong, or None."""

    def instance_id(self, instance_id: str) -> str | None: ...

    def name(self, name: str, what: str) -> str | None: ...

    def version(self, version: str | None) -> str | None: ...

    def payload(self, payload: Raw, what: str) -> str | None: ...


class EntityExecutor:
    """Runs the entities of one app."""

    def __init__(self, app: Registry, limits: Limits | None = None) -> None:
        self._app = app
        self._limits = limits
        self._around = app.executing(ExecutionKind.ENTITY)

    def run(self, work: EntityWork) -> EntityStep:
        """Carry out the operations, one after the other."""
        try:
            definition = self._app.find_entity(work.name)
        except EntityNotRegistered as error:
            return EntityStep(work.instance_id, work.token, parked=str(error))
        sealer = self._app.sealer
        if sealer is not None:
            try:
                work = _opened(work, sealer)
            except InputInvalid as error:
                return EntityStep(work.instance_id, work.token, parked=str(error))
        batch = _Batch(work, definition, self._limits, self._around)
        results = tuple(batch.perform(operation) for operation in work.operations)
        state = None if batch.state == work.state else batch.state
        step = EntityStep(work.instance_id, work.token, results, state, tuple(batch.outputs))
        return step if sealer is None else _sealed(step, sealer)


def _opened(work: EntityWork, sealer: Sealer) -> EntityWork:
    return replace(
        work,
        state=tuple(sealer.open(each) for each in work.state),
        operations=tuple(sealer.open_fields(each) for each in work.operations),
    )


def _sealed(step: EntityStep, sealer: Sealer) -> EntityStep:
    return replace(
        step,
        results=tuple(sealer.seal_fields(each) for each in step.results),
        state=None if step.state is None else tuple(sealer.seal(each) for each in step.state),
        outputs=tuple(sealer.seal_fields(each) for each in step.outputs),
    )


class _Batch:
    """The operations of one work item."""

    def __init__(
        self,
        work: EntityWork,
        definition: EntityDefinition,
        limits: Limits | None,
        around: Sequence[ExecutionMiddleware] = (),
    ) -> None:
        self._around = around
        self._work = work
        self._definition = definition
        self._limits = limits
        self.state: State = work.state
        self.outputs: list[Output] = []

    def perform(self, operation: Operation) -> OperationResult:
        """Carry out one operation; if it fails, all is as before."""
        context = EntityContext(self._work, operation, self.state, len(self.outputs))
        try:
            if self._around:
                value, state = self._call_wrapped(context, operation)
            else:
                value, state = self._call(context, operation)
            result = encode(value, "result of operation", operation.name)
            self._check(result, state, context.outputs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises
            return OperationResult(failure=self._failure(operation, error))
        self.state = state
        self.outputs += context.outputs
        return OperationResult(result)

    def _failure(self, operation: Operation, error: BaseException) -> Failure:
        if operation.caller is None and operation.origin is None:
            logger.warning(
                "entity=%s operation=%s, which nobody waits for, failed: %r",
                self._work.instance_id,
                operation.name,
                error,
            )
        return failure_of(error)

    def _call(self, context: EntityContext, operation: Operation) -> tuple[Any, State]:
        if self._definition.binding is not None:
            return self._call_function(context, operation), context.state
        return self._call_method(context, operation)

    def _call_wrapped(self, context: EntityContext, operation: Operation) -> tuple[Any, State]:
        state = self.state

        async def innermost() -> Any:
            nonlocal state
            try:
                value, state = self._call(context, operation)
            except BaseException:
                # The middleware may make a result of it; the operation is undone all the same.
                context.state, context.deleted = self.state, False
                context.outputs.clear()
                raise
            return value

        info = ExecutionInfo(
            kind=ExecutionKind.ENTITY,
            name=self._definition.name,
            instance_id=self._work.instance_id,
            context=context,
            operation=operation.name,
            payload=operation.input,
        )
        value = _value_of(layered(self._around, info, innermost)(), operation.name)
        return value, state

    def _call_function(self, context: EntityContext, operation: Operation) -> Any:
        binding = self._definition.binding
        assert binding is not None
        return _value_of(binding.call(context, operation.input), operation.name)

    def _call_method(self, context: EntityContext, operation: Operation) -> tuple[Any, State]:
        definition = self._definition
        known = definition.operations.get(operation.name)
        if known is None:
            if operation.name == "delete":
                return None, ()
            there_is = ", ".join(definition.operations)
            raise InputInvalid(
                f"entity {definition.name!r} has no operation {operation.name!r}; it has {there_is}"
            )
        positional, named = known.binding.arguments(context, operation.input)
        live = self._object()
        value = _value_of(known.fn(live, *positional, **named), operation.name)
        if context.deleted:
            return value, ()
        return value, (encode(live, "state of", self._work.instance_id),)

    def _object(self) -> Any:
        # Anew for each operation, also within a batch: an entity is its state and nothing else.
        if not self.state:
            return self._definition.target()
        codec = self._definition.state_codec
        return codec.decode(self.state[0], f"state of {self._work.instance_id}")

    def _check(self, result: Raw, state: State, outputs: list[Output]) -> None:
        limits = self._limits
        if limits is None:
            return
        problem = limits.payload(result, "result")
        for each in state:
            problem = problem or limits.payload(each, "state")
        for output in outputs:
            what = "input of a signal" if isinstance(output, SignalSent) else "input"
            problem = problem or limits.payload(output.input, what)
        if problem is not None:
            raise PayloadTooLarge(problem)
        for output in outputs:
            problem = limits.instance_id(output.instance_id) or limits.name(output.name, "a name")
            if isinstance(output, OrchestrationStarted):
                problem = problem or limits.version(output.version)
            if problem is not None:
                raise InputInvalid(problem)


def _value_of(value: Any, name: str) -> Any:
    """Return what an operation returns, also if it is `async def`; but it must not wait."""
    if not inspect.iscoroutine(value):
        return value
    coroutine: Coroutine[Any, Any, Any] = value
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    _close(coroutine)
    raise OperationSuspended(
        f"operation {name!r} waits for something, but an entity does one thing at a time and at "
        "once: call an activity from an orchestration, and the entity with its result"
    )


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.close()
    except Exception as error:  # noqa: BLE001 - its own cleanup
        logger.debug("suspended operation raised %r", error)
