"""`App`: the activities, orchestrators and entities of a program, by name.

The decorators register a function and give it back as it is, so that it can still be called
and tested like any function.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Coroutine
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from shardrt.errors import (
    ActivityNotRegistered,
    ConfigInvalid,
    OrchestratorNotRegistered,
)
from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.binding import Binding, names_of_caller
from shardrt.orchestration.context import OrchestrationContext
from shardrt.orchestration.custom import CustomCodec, register
from shardrt.orchestration.definitions import (
    DEFINITION,
    ActivityDefinition,
    Mode,
    OrchestratorDefinition,
    age_of,
)
from shardrt.orchestration.entity_registry import EntityRegistry
from shardrt.orchestration.middleware import MiddlewareRegistry
from shardrt.orchestration.packages import modules_of
from shardrt.orchestration.retry import (
    Duration,
    RetryPolicy,
    attempts_of,
    limit_problems,
    microseconds,
)
from shardrt.orchestration.schedules import BUILT_IN
from shardrt.orchestration.sealing import PayloadCodec, sealer_of

if TYPE_CHECKING:
    from shardrt.orchestration.limit import Limit, LimitKey

T = TypeVar("T")
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
AnyCoroutineFunction = TypeVar(
    "AnyCoroutineFunction", bound=Callable[..., Coroutine[Any, Any, Any]]
)


class ActivityOptions(TypedDict, total=False):
    """Arguments of `@app.activity`; see there."""

    name: str | None
    retry: RetryPolicy | None
    timeout: Duration | None
    heartbeat_timeout: Duration | None
    total_timeout: Duration | None
    executor: Mode | None
    max_concurrency: int | None
    speculative: bool
    transactional: bool
    limit: Limit | None
    limit_key: LimitKey | None


class OrchestratorOptions(TypedDict, total=False):
    """Arguments of `@app.orchestrator`; see there."""

    name: str | None
    version: str | None


class App(EntityRegistry, MiddlewareRegistry):
    """A collection of activities, orchestrators and entities, to be served by a runtime.

    Args:
        payload_codec: compresses or encrypts inputs, results, events and custom status before
            they are stored; see `shardrt.orchestration.sealing`. Clients need it too.
    """

    def __init__(self, *, payload_codec: PayloadCodec | None = None) -> None:
        EntityRegistry.__init__(self)
        MiddlewareRegistry.__init__(self)
        self.payload_codec = payload_codec
        self.sealer = sealer_of(payload_codec)
        self._activities: dict[str, ActivityDefinition] = {}
        self._orchestrators: dict[str, dict[str | None, OrchestratorDefinition]] = {}
        self._by_function: dict[object, ActivityDefinition | OrchestratorDefinition] = {}

    # -- registering ---------------------------------------------------------------------------

    @overload
    def activity(self, fn: AnyFunction, /) -> AnyFunction: ...
    @overload
    def activity(
        self,
        /,
        **options: Unpack[ActivityOptions],
    ) -> Callable[[AnyFunction], AnyFunction]: ...
    def activity(
        self, fn: Callable[..., Any] | None = None, /, **options: Unpack[ActivityOptions]
    ) -> Any:
        """Register an activity; bare or with arguments.

        Args:
            fn: the function, when used bare.
            **options: `name` (default: the function's), `retry`, `timeout` (for one attempt),
                `heartbeat_timeout` (an attempt that is silent for longer has failed),
                `total_timeout` (for all attempts, with what is between them; these four are
                defaults that a call can override, times in seconds or timedelta),
                `executor` ("async" for `async def`, else "thread", or "process"),
                `max_concurrency` (per shard), `speculative` (may start before its cause is
                durable: for pure or idempotent work), `transactional` (what it writes by
                `ctx.connection` commits together with its outcome, or not at all), `limit`
                (in the whole hub) and `limit_key` (from the input to which one of it).

        Raises:
            ConfigInvalid: the name is taken, or the function or an option cannot be used.
        """
        _refuse_unknown("activity", options, ActivityOptions)
        names = names_of_caller(1)

        def register(fn: AnyFunction) -> AnyFunction:
            self._add_activity(_activity(fn, names, **options))
            return fn

        return register if fn is None else register(fn)

    @overload
    def orchestrator(self, fn: AnyCoroutineFunction, /) -> AnyCoroutineFunction: ...
    @overload
    def orchestrator(
        self, /, **options: Unpack[OrchestratorOptions]
    ) -> Callable[[AnyCoroutineFunction], AnyCoroutineFunction]: ...
    def orchestrator(
        self, fn: Callable[..., Any] | None = None, /, **options: Unpack[OrchestratorOptions]
    ) -> Any:
        """Register an orchestrator, which must be `async def`; bare or with arguments.

        Args:
            fn: the function, when used bare.
            **options: `name` (default: the function's) and `version`. Several versions of
                one name can be registered side by side: a start takes the newest, and each
                instance ends on the version it was started with.

        Raises:
            ConfigInvalid: the name and version are taken, or the function cannot be used.
        """
        _refuse_unknown("orchestrator", options, OrchestratorOptions)
        names = names_of_caller(1)

        def register(fn: AnyCoroutineFunction) -> AnyCoroutineFunction:
            self._add_orchestrator(_orchestrator(fn, names, **options))
            return fn

        return register if fn is None else register(fn)

    def codec(
        self, of: type[T], /, *, encode: Callable[[T], Any], decode: Callable[[Any], T]
    ) -> None:
        """Teach payloads a type that has no JSON form of its own; not its subclasses.

        It is known to the whole process from then on, clients included.

        Args:
            of: the class.
            encode: from a value to something that has a JSON form.
            decode: back, from plain JSON. Whatever it raises makes the payload invalid.

        Raises:
            ConfigInvalid: it has a form already, or another codec.
        """
        register(of, CustomCodec(encode, decode))

    def include(self, other: App) -> None:
        """Register everything that `other` has registered so far.

        Its middleware comes inside of what is here, and is for the whole app from then on.

        Raises:
            ConfigInvalid: a name is taken; then nothing of `other` is registered.
        """
        taken = [
            f"activity {name!r} is registered twice"
            for name, definition in other._activities.items()
            if self._activities.get(name, definition).fn is not definition.fn
        ]
        for name, versions in other._orchestrators.items():
            mine = self._orchestrators.get(name, {})
            taken += [
                f"{_title(name, version)} is registered twice"
                for version, definition in versions.items()
                if mine.get(version, definition).fn is not definition.fn
            ]
        taken += self._taken_entities(other)
        taken += [text for each in other.activities for text in self._other_limits(each)]
        if taken:
            raise ConfigInvalid(taken)
        self._entities.update(other._entities)
        for name, versions in other._orchestrators.items():
            self._orchestrators.setdefault(name, {}).update(versions)
        self._activities.update(other._activities)
        self._by_function.update(other._by_function)
        self._include_middleware(other)

    def scan(self, package: str) -> None:
        """Import a package with all modules below it, and include every `App` at their top level.

        An app that modules import from elsewhere counts as well, and one that is found twice is
        included once. Modules that register with this very app do so by being imported.

        Args:
            package: its full name, such as ``"mypackage.flows"``, or ``__name__``. Modules called
                ``__main__`` are left out, and directories without an ``__init__.py``.

        Raises:
            ConfigInvalid: a module cannot be imported, or what it registers is registered by
                another one already; says which module. What came before it stays registered.
        """
        for module in modules_of(package):
            for found in list(vars(module).values()):
                if not isinstance(found, App) or found is self:
                    continue
                try:
                    self.include(found)
                except ConfigInvalid as error:
                    problems = [f"module {module.__name__!r}: {each}" for each in error.problems]
                    raise ConfigInvalid(problems) from None

    def _add_activity(self, definition: ActivityDefinition) -> None:
        if definition.name in self._activities:
            raise ConfigInvalid(f"activity {definition.name!r} is registered twice")
        if problems := self._other_limits(definition):
            raise ConfigInvalid(problems)
        self._activities[definition.name] = definition
        self._by_function[definition.fn] = definition

    def _other_limits(self, added: ActivityDefinition) -> list[str]:
        """Return whose limit has the name of this one's, but is another."""
        return [
            f"activity {added.name!r}: its limit {added.limit.name!r} has other numbers than "
            f"that of activity {known.name!r}"
            for known in self._activities.values()
            if added.limit is not None
            and known.limit is not None
            and known.limit.name == added.limit.name
            and known.limit.numbers() != added.limit.numbers()
        ]

    def _add_orchestrator(self, definition: OrchestratorDefinition) -> None:
        if definition.name in BUILT_IN:
            raise ConfigInvalid(f"orchestrator {definition.name!r} is built in")
        versions = self._orchestrators.setdefault(definition.name, {})
        if definition.version in versions:
            title = _title(definition.name, definition.version)
            raise ConfigInvalid(f"{title} is registered twice")
        versions[definition.version] = definition
        self._by_function[definition.fn] = definition
        with contextlib.suppress(AttributeError):  # bound methods take none
            definition.fn.__dict__.setdefault(DEFINITION, definition)

    # -- looking up ----------------------------------------------------------------------------

    @property
    def activities(self) -> list[ActivityDefinition]:
        """All of them, in order of registration."""
        return list(self._activities.values())

    @property
    def orchestrators(self) -> list[OrchestratorDefinition]:
        """All versions of all of them, in order of registration."""
        return [each for versions in self._orchestrators.values() for each in versions.values()]

    def find_activity(self, fn: Callable[..., Any] | str) -> ActivityDefinition:
        """Return the activity of that name or function.

        Raises:
            ActivityNotRegistered: there is none.
        """
        found = self._activities.get(fn) if isinstance(fn, str) else self._by_function.get(fn)
        if not isinstance(found, ActivityDefinition):
            raise ActivityNotRegistered(f"{_called(fn)} is not registered as an activity")
        return found

    def find_orchestrator(
        self, fn: Callable[..., Any] | str, version: str | None = None
    ) -> OrchestratorDefinition:
        """Return the orchestrator of that function, or of that name and version.

        A name without a version stands for its newest one: the highest by its numbers, where
        none at all is the lowest.

        Raises:
            OrchestratorNotRegistered: there is none.
        """
        if not isinstance(fn, str):
            found = self._by_function.get(fn)
            if not isinstance(found, OrchestratorDefinition):
                raise OrchestratorNotRegistered(
                    f"{_called(fn)} is not registered as an orchestrator"
                )
            return found
        versions = self._versions_of(fn)
        if version is None and versions is not None:
            newest = max(versions, key=age_of) if len(versions) > 1 else next(iter(versions))
            return versions[newest]
        return self.orchestrator_of(fn, version)

    def _versions_of(self, name: str) -> dict[str | None, OrchestratorDefinition] | None:
        return self._orchestrators.get(name) or BUILT_IN.get(name)

    def orchestrator_of(self, name: str, version: str | None) -> OrchestratorDefinition:
        """Return exactly this version, where None is the one registered without.

        Raises:
            OrchestratorNotRegistered: it is not there.
        """
        versions = self._versions_of(name)
        if versions is None:
            raise OrchestratorNotRegistered(f"no orchestrator {name!r} is registered")
        if version in versions:
            return versions[version]
        have = ", ".join(repr(each) if each else "none" for each in versions)
        wanted = f"{_title(name, None)} without a version" if version is None else None
        raise OrchestratorNotRegistered(
            f"{wanted or _title(name, version)} is not registered; there is version {have}"
        )


def _called(fn: Callable[..., Any] | str) -> str:
    return repr(fn) if isinstance(fn, str) else getattr(fn, "__qualname__", repr(fn))


def _title(name: str, version: str | None) -> str:
    return f"orchestrator {name!r}" + ("" if version is None else f" version {version!r}")


def _refuse_unknown(kind: str, options: Any, known: Any) -> None:
    problems = []
    for option in options.keys() - known.__annotations__.keys():
        near = get_close_matches(option, known.__annotations__, n=1)
        hint = (
            f"did you mean {near[0]}?" if near else f"it takes {', '.join(known.__annotations__)}"
        )
        problems.append(f"@app.{kind} has no option {option!r}; {hint}")
    if problems:
        raise ConfigInvalid(sorted(problems))


def _name_of(fn: object, name: str | None, kind: str) -> str:
    if not inspect.isroutine(fn):
        raise ConfigInvalid(f"@app.{kind} goes on a function, not on {fn!r}")
    name = fn.__name__ if name is None else name
    if not name or not name.isprintable():
        raise ConfigInvalid(f"{name!r} is no name for an {kind}")
    return name


def _activity(  # noqa: PLR0913
    fn: Callable[..., Any],
    names: Any,
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    total_timeout: Duration | None = None,
    executor: Mode | None = None,
    max_concurrency: int | None = None,
    speculative: bool = False,
    transactional: bool = False,
    limit: Limit | None = None,
    limit_key: LimitKey | None = None,
) -> ActivityDefinition:
    name = _name_of(fn, name, "activity")
    what = f"activity {name!r}"
    is_async = inspect.iscoroutinefunction(fn)
    if executor is None:
        executor = "async" if is_async else "thread"
    problems = []
    if executor not in {"async", "thread", "process"}:
        problems.append(f"{what}: executor must be async, thread or process, not {executor!r}")
    elif is_async != (executor == "async"):
        kind = "async def" if is_async else "def"
        problems.append(f'{what}: executor="{executor}" does not go with a plain {kind}')
    if transactional and (executor != "async" or speculative):
        problems.append(f"{what}: transactional goes with async def, and not with speculative")
    if max_concurrency is not None and max_concurrency < 1:
        problems.append(f"{what}: max_concurrency must be at least 1, not {max_concurrency}")
    if limit is not None and speculative:
        problems.append(f"{what}: speculative does not go with a limit, which it cannot wait for")
    if limit_key is not None and (limit is None or not callable(limit_key)):
        problems.append(f"{what}: limit_key is a function, and goes with a limit")
    limits = {
        "timeout": timeout,
        "heartbeat_timeout": heartbeat_timeout,
        "total_timeout": total_timeout,
    }
    problems += [f"{what}: {each}" for each in limit_problems(limits)]
    if problems:
        raise ConfigInvalid(problems)
    return ActivityDefinition(
        name=name,
        fn=fn,
        binding=Binding(fn, ActivityContext, what, names),
        executor=executor,
        retry=attempts_of(None, retry, heartbeat_timeout, total_timeout),
        timeout=None if timeout is None else microseconds(timeout),
        max_concurrency=max_concurrency,
        speculative=speculative,
        transactional=transactional,
        limit=limit,
        limit_key=limit_key,
    )


def _orchestrator(
    fn: Callable[..., Any], names: Any, *, name: str | None = None, version: str | None = None
) -> OrchestratorDefinition:
    name = _name_of(fn, name, "orchestrator")
    title = _title(name, version)
    if not inspect.iscoroutinefunction(fn):
        raise ConfigInvalid(f"{title}: must be an async def")
    binding = Binding(fn, OrchestrationContext, title, names)
    return OrchestratorDefinition(name=name, version=version, fn=fn, binding=binding)
