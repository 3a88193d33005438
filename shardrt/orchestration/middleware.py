"""Middleware: functions of users around what an app executes, and before what it schedules.

What is registered first is outermost. Each middleware gets an info and `call_next`, which goes on
towards the thing itself: at most once, and perhaps never.

Where it runs decides what it may do. Around an activity, and before what a client asks for, it
runs on the host, at the time, and may wait and do I/O; what it led to is recorded, so it never
runs again in a replay. Everything else happens inside of orchestrations: there it is part of
their code, is replayed with it, and must be as deterministic. (The guard sees to it.) A
recorded verdict would have allowed more, at the price of an event in each history; who needs
chance or a clock has them around the activity.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from shardrt.core.history import NULL
from shardrt.errors import ConfigInvalid, SchedulingVetoed
from shardrt.orchestration.facts import EPOCH, MICROSECOND
from shardrt.orchestration.payload import ANY

if TYPE_CHECKING:
    from datetime import datetime

    from msgspec import Raw

    from shardrt.orchestration.activity import ActivityContext
    from shardrt.orchestration.binding import Binding
    from shardrt.orchestration.context import OrchestrationContext
    from shardrt.orchestration.definitions import Registry
    from shardrt.orchestration.entity_context import EntityContext


class ExecutionKind(StrEnum):
    """What is executed."""

    ACTIVITY = "activity"
    """One attempt of it."""
    ORCHESTRATION = "orchestration"
    """The body of one execution, from its start to its end: inside, and replayed."""
    ENTITY = "entity"
    """One operation; it must not wait."""


class SchedulingSource(StrEnum):
    """What is asked for."""

    START = "start"
    """A start by a client."""
    ACTIVITY = "activity"
    """A call by an orchestrator, as are the others below."""
    CHILD = "child"
    TIMER = "timer"
    """Also of `asyncio.sleep` and time-outs."""
    EVENT = "event"
    """One that an orchestrator sends, or a client raises."""


def _nothing() -> Raw:
    return NULL


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """What is executed, and for whom."""

    kind: ExecutionKind
    name: str
    """Of the activity, orchestrator or entity."""
    instance_id: str
    """Of the orchestration, or the entity."""
    context: ActivityContext | OrchestrationContext | EntityContext
    """The one that the code itself gets."""
    attempt: int = 1
    """Of an activity, counted from 1."""
    operation: str = ""
    """Of an entity."""
    payload: Raw = field(default_factory=_nothing, repr=False)
    """The input as JSON text."""

    @property
    def input(self) -> Any:
        """The input as plain JSON; decoded anew each time."""
        return ANY.decode(self.payload, "input")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingInfo:
    """What is asked for, and by whom."""

    source: SchedulingSource
    name: str
    """Of the orchestrator, activity or event; empty for a timer."""
    instance_id: str
    """What is started, or who gets the event; for activities and timers, who asks."""
    context: OrchestrationContext | None = None
    """Who asks; None: a client."""
    tags: dict[str, str] = field(default_factory=dict)
    """Of a start."""
    at: datetime | None = None
    """When a timer is due, or a start is to be; in UTC."""
    payload: Raw = field(default_factory=_nothing, repr=False)
    """The input or the event's data as JSON text."""

    @property
    def input(self) -> Any:
        """The input, or the event's data, as plain JSON; decoded anew each time."""
        return ANY.decode(self.payload, "input")


CallNext: TypeAlias = Callable[[], Awaitable[Any]]
ExecutionMiddleware: TypeAlias = Callable[[ExecutionInfo, CallNext], Coroutine[Any, Any, Any]]
SchedulingMiddleware: TypeAlias = Callable[[SchedulingInfo, CallNext], Coroutine[Any, Any, Any]]
AnyExecution = TypeVar("AnyExecution", bound=ExecutionMiddleware)
AnyScheduling = TypeVar("AnyScheduling", bound=SchedulingMiddleware)


class MiddlewareRegistry:
    """The part of an app that knows its middleware."""

    def __init__(self) -> None:
        self._around: list[tuple[ExecutionMiddleware, frozenset[ExecutionKind]]] = []
        self._before: list[tuple[SchedulingMiddleware, frozenset[SchedulingSource]]] = []

    @overload
    def execution_middleware(self, fn: AnyExecution, /) -> AnyExecution: ...
    @overload
    def execution_middleware(
        self, /, *, kinds: Iterable[str] = ...
    ) -> Callable[[AnyExecution], AnyExecution]: ...
    def execution_middleware(
        self,
        fn: ExecutionMiddleware | None = None,
        /,
        *,
        kinds: Iterable[str] = (ExecutionKind.ACTIVITY,),
    ) -> Any:
        """Wrap what is executed: ``async def around(info, call_next)``; bare or with arguments.

        ``await call_next()`` executes and returns the result, or raises. What the middleware
        returns or raises takes its place. First registered is outermost. Register before the
        app is served.

        Around an activity it runs on the host, in the event loop of its shard, for each attempt,
        and within the attempt's time-out; around one that is transactional, in the
        transaction. What a process raised comes as `ActivityFailed`.

        Around an orchestration it is part of the code: it runs from the start to the end of an
        execution, is replayed with it, and must be deterministic. Around an operation of an
        entity it must not wait. So these two are only wrapped when asked for.

        Args:
            fn: the function, when used bare.
            kinds: of `ExecutionKind`.

        Raises:
            ConfigInvalid: it is no `async def` of two arguments, is registered already, or a
                kind is unknown.
        """
        wanted = _members(ExecutionKind, kinds)

        def register(fn: AnyExecution) -> AnyExecution:
            _check(fn, [known for known, _ in self._around])
            self._around.append((fn, wanted))
            return fn

        return register if fn is None else register(fn)

    @overload
    def scheduling_middleware(self, fn: AnyScheduling, /) -> AnyScheduling: ...
    @overload
    def scheduling_middleware(
        self, /, *, sources: Iterable[str] = ...
    ) -> Callable[[AnyScheduling], AnyScheduling]: ...
    def scheduling_middleware(
        self,
        fn: SchedulingMiddleware | None = None,
        /,
        *,
        sources: Iterable[str] = (SchedulingSource.START,),
    ) -> Any:
        """See what is asked for before it is recorded: ``async def before(info, call_next)``.

        It is recorded once all of them have awaited `call_next`, which returns None, and have
        returned. An exception is a veto: nothing is recorded, and who asks gets the error. A
        client gets `SchedulingVetoed` with its text, or the same error if it is a
        `ShardrtError`; code gets the very exception, out of the call.

        Before a start by a client, or an event that a client raises, it runs on the host and
        may wait. A request that the client repeats, because the answer was lost, is not looked
        at again if it is recorded. All else is inside of orchestrations (then the info has a
        `context`): as all code there it is replayed and must be deterministic, and it must not
        wait. Built-in orchestrators are not asked.

        Args:
            fn: the function, when used bare.
            sources: of `SchedulingSource`.

        Raises:
            ConfigInvalid: it is no `async def` of two arguments, is registered already, or a
                source is unknown.
        """
        wanted = _members(SchedulingSource, sources)

        def register(fn: AnyScheduling) -> AnyScheduling:
            _check(fn, [known for known, _ in self._before])
            self._before.append((fn, wanted))
            return fn

        return register if fn is None else register(fn)

    def executing(self, kind: ExecutionKind) -> tuple[ExecutionMiddleware, ...]:
        """Return what wraps things of this kind, outermost first."""
        return tuple(fn for fn, kinds in self._around if kind in kinds)

    def scheduling(self, source: SchedulingSource) -> tuple[SchedulingMiddleware, ...]:
        """Return what looks at things of this source, outermost first."""
        return tuple(fn for fn, sources in self._before if source in sources)

    def _include_middleware(self, other: MiddlewareRegistry) -> None:
        """Take over what another has, inside of what is here; each one once."""
        self._around += [each for each in other._around if each not in self._around]
        self._before += [each for each in other._before if each not in self._before]


def layered(
    middleware: Iterable[Callable[..., Any]], info: object, innermost: CallNext
) -> CallNext:
    """Return what calls the outermost, which calls the next one, and so on."""
    call: CallNext = _Once(innermost)
    for fn in reversed(tuple(middleware)):
        call = _Once(fn, info, call)
    return call


class _Once:
    """A call that can be made once: a second one would leave unclear what is recorded."""

    __slots__ = ("_arguments", "_called", "_fn")

    def __init__(self, fn: Callable[..., Awaitable[Any]], *arguments: object) -> None:
        self._fn = fn
        self._arguments = arguments
        self._called = False

    def __call__(self) -> Awaitable[Any]:
        if self._called:
            raise RuntimeError("call_next was called before; use a retry policy to try again")
        self._called = True
        return self._fn(*self._arguments)


class Verdict:
    """What scheduling middleware says to one request."""

    __slots__ = ("_passed", "_title", "_way")

    def __init__(self, middleware: Iterable[SchedulingMiddleware], info: SchedulingInfo) -> None:
        self._passed = False
        self._title = f"{info.source} {info.name}".rstrip()
        self._way = layered(middleware, info, self._pass)

    async def _pass(self) -> None:
        self._passed = True

    async def reached(self) -> None:
        """Return if it may be recorded; raise the veto if not."""
        await self._way()
        if not self._passed:
            raise SchedulingVetoed(f"{self._title}: the middleware did not let it pass")

    def reached_at_once(self) -> None:
        """Do the same inside of a turn, where nothing can be waited for."""
        coroutine = self.reached()
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()
        raise SchedulingVetoed(
            f"{self._title}: the middleware waits for something, which it cannot before what an "
            "orchestrator asks for"
        )


class Permits:
    """Asks the middleware of one app before an orchestrator's calls are recorded."""

    __slots__ = ("_context", "_middleware")

    def __init__(
        self,
        middleware: dict[SchedulingSource, tuple[SchedulingMiddleware, ...]],
        context: OrchestrationContext,
    ) -> None:
        self._middleware = middleware
        self._context = context

    def ask(
        self, source: SchedulingSource, name: str, payload: Raw, instance_id: str | None = None
    ) -> None:
        """Return if the call may be recorded; raise the veto if not."""
        if middleware := self._middleware.get(source):
            info = SchedulingInfo(
                source=source,
                name=name,
                instance_id=self._context.instance_id if instance_id is None else instance_id,
                context=self._context,
                payload=payload,
            )
            Verdict(middleware, info).reached_at_once()

    def ask_for_timer(self, fire_at: int) -> None:
        """Do the same for a timer that is due at this time, in microseconds."""
        if middleware := self._middleware.get(SchedulingSource.TIMER):
            info = SchedulingInfo(
                source=SchedulingSource.TIMER,
                name="",
                instance_id=self._context.instance_id,
                context=self._context,
                at=EPOCH + fire_at * MICROSECOND,
            )
            Verdict(middleware, info).reached_at_once()


class Layers:
    """All of an app's middleware that is inside of orchestrations."""

    __slots__ = ("_around", "_before")

    def __init__(
        self,
        around: tuple[ExecutionMiddleware, ...],
        before: dict[SchedulingSource, tuple[SchedulingMiddleware, ...]],
    ) -> None:
        self._around = around
        self._before = before

    def permits(self, context: OrchestrationContext) -> Permits | None:
        """Return what the calls of an execution ask, if there is anything to ask."""
        return Permits(self._before, context) if self._before else None

    def body(self, context: OrchestrationContext, binding: Binding, payload: Raw) -> Any:
        """Return the body of an execution as a coroutine, with what is around it.

        Raises:
            InputInvalid: the input does not fit; only if nothing is around it, which would
                else be told by the body.
        """
        if not self._around:
            return binding.call(context, payload)

        async def innermost() -> Any:
            return await binding.call(context, payload)

        info = ExecutionInfo(
            kind=ExecutionKind.ORCHESTRATION,
            name=context.name,
            instance_id=context.instance_id,
            context=context,
            payload=payload,
        )
        return layered(self._around, info, innermost)()


def layers_of(app: Registry) -> Layers | None:
    """Return what is inside of an app's orchestrations; None if nothing is."""
    around = app.executing(ExecutionKind.ORCHESTRATION)
    inside = [source for source in SchedulingSource if source is not SchedulingSource.START]
    before: dict[SchedulingSource, tuple[SchedulingMiddleware, ...]] = {}
    before |= {source: found for source in inside if (found := app.scheduling(source))}
    return Layers(around, before) if around or before else None


Kind = TypeVar("Kind", bound=StrEnum)


def _members(of: type[Kind], values: Iterable[str]) -> frozenset[Kind]:
    try:
        found = frozenset(of(each) for each in ([values] if isinstance(values, str) else values))
    except ValueError as error:
        raise ConfigInvalid(f"middleware: {error}; there is {', '.join(of)}") from None
    if not found:
        raise ConfigInvalid(f"middleware for nothing; there is {', '.join(of)}")
    return found


def _check(fn: object, known: Iterable[object]) -> None:
    if not callable(fn) or not (
        inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
    ):
        raise ConfigInvalid(f"middleware is an async def, not {fn!r}")
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError:
        raise ConfigInvalid(f"middleware {fn!r} must take an info and call_next") from None
    if fn in known:
        raise ConfigInvalid(f"middleware {fn!r} is registered twice")
