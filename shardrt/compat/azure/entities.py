"""The context of an entity, in Azure's words, over that of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from shardrt.compat.azure.values import from_input, from_payload, to_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.orchestration.entity_context import EntityContext


class DurableEntityContext:
    """One operation; the names are those of Azure's Python package."""

    def __init__(self, ctx: EntityContext, payload: Raw) -> None:
        self._ctx = ctx
        self._input = payload
        self._state: tuple[Any, ...] | None = None
        """The state as a value, if it was looked at or set; empty if there is none."""
        self._result: Any = None
        self.is_newly_constructed = not ctx.has_state
        """Whether there was no state when the operation began."""

    @property
    def entity_name(self) -> str:
        return self._ctx.name

    @property
    def entity_key(self) -> str:
        return self._ctx.key

    @property
    def operation_name(self) -> str:
        return self._ctx.operation

    def get_input(self, expected_type: type | None = None) -> Any:
        """Return the input of the operation."""
        return from_input(self._input, expected_type)

    def get_state(
        self, initializer: Callable[[], Any] | None = None, expected_type: type | None = None
    ) -> Any:
        """Return the state; if there is none, what `initializer` makes, which is not kept yet.

        A change of what is returned is a change of the state, without `set_state`.
        """
        if self._state is None:
            found = self._ctx.get_state(Raw)
            self._state = () if found is None else (from_payload(found, expected_type),)
        if self._state and self._state[0] is not None:
            return self._state[0]
        return initializer() if initializer else None

    def set_state(self, state: Any) -> None:
        """Set the state; None is none."""
        self._state = (state,)

    def set_result(self, result: Any) -> None:
        """Answer who called."""
        self._result = result

    def destruct_on_exit(self) -> None:
        """Leave the entity without a state."""
        self._state = ()

    def finish(self) -> Raw:
        """Hand the state back, and return the result."""
        if self._state:
            self._ctx.set_state(to_payload(self._state[0], "state"))
        elif self._state is not None and self._ctx.has_state:
            self._ctx.delete_state()
        return to_payload(self._result, "result")
