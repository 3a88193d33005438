"""An app whose activities run in the loop, and can be replaced while it is served."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.app import App
from shardrt.orchestration.binding import Binding, names_of_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from shardrt.orchestration.definitions import ActivityDefinition


class StandIn(Binding):
    """How an activity is called: the real one, or what stands in for it.

    Types are those of the real one, so a value that would not fit it is found out.
    """

    __slots__ = ("_mock", "_stub")

    def __init__(self, activity: ActivityDefinition) -> None:
        for name in Binding.__slots__:
            setattr(self, name, getattr(activity.binding, name))
        self.takes_context = True  # the replacement may want it
        self._stub: _Stub | None = None
        self._mock: Callable[..., Any] | None = None

    def replace(self, replacement: Callable[..., Any] | None) -> None:
        """Call this instead; None: the real one again. Raises `ConfigInvalid`."""
        is_function = inspect.isroutine(replacement)
        self._stub = _Stub(replacement, self) if replacement and is_function else None
        self._mock = None if is_function else replacement

    def call(self, context: object, payload: Raw) -> Any:
        """Return a coroutine, also for a plain function."""
        return self._perform(context, payload)

    async def _perform(self, context: object, payload: Raw) -> Any:
        if self._mock is not None:
            value = self._mock(self.input_codec.decode(payload, "input of a stub"))
        elif self._stub is not None:
            value = self._stub.call(context, payload)
        else:
            value = super().call(context, payload)
        return await value if inspect.isawaitable(value) else value


class _Stub(Binding):
    """A function in place of an activity. Without an annotation it gets the activity's type."""

    __slots__ = ()

    def __init__(self, fn: Callable[..., Any], real: Binding) -> None:
        super().__init__(fn, ActivityContext, "stub", names_of_caller(3))
        if self._input is not None and self._input.annotation is inspect.Parameter.empty:
            self._input_codec = real.input_codec


class StandInApp(App):
    """A copy of an app with `StandIn`s; it shares everything else."""

    def __init__(self, app: App) -> None:
        super().__init__(payload_codec=app.payload_codec)
        self.include(app)
        self._stand_ins: dict[str, StandIn] = {}
        for activity in app.activities:
            stand_in = self._stand_ins[activity.name] = StandIn(activity)
            self._activities[activity.name] = dataclasses.replace(
                activity, binding=stand_in, executor="async"
            )

    def stub(self, name: str, replacement: Callable[..., Any] | None) -> None:
        """Replace an activity, or put the real one back. Raises `ActivityNotRegistered`."""
        self._stand_ins[self.find_activity(name).name].replace(replacement)
