"""`OrchestrationContext`: what an orchestrator can ask for.

Every call starts at once, gets the next task id of its execution and returns a future that
fits into all of asyncio. Nothing here may depend on anything but the arguments, the ids of
the execution and what has arrived: a replay must ask for the same again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from shardrt.core.history import (
    EventSent,
    Quota,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
)
from shardrt.errors import (
    ActivityFailed,
    ActivityNotRegistered,
    InputInvalid,
    OrchestratorNotRegistered,
    SubOrchestrationFailed,
)
from shardrt.orchestration.entity_calls import EntityCalls
from shardrt.orchestration.facts import EPOCH, MICROSECOND
from shardrt.orchestration.futures import CallFuture, EventFuture, TimerFuture
from shardrt.orchestration.limit import quota_of
from shardrt.orchestration.middleware import SchedulingSource
from shardrt.orchestration.payload import ANY, codec_for, encode
from shardrt.orchestration.retry import (
    CallOptions,
    Duration,
    RetryPolicy,
    attempts_of,
    microseconds,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from msgspec import Raw

    from shardrt.orchestration.activity import ActivityContext
    from shardrt.orchestration.definitions import (
        ActivityDefinition,
        OrchestratorDefinition,
    )

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


class OrchestrationContext(EntityCalls):
    """One execution, as its orchestrator sees it. Made by the runtime, never by users."""

    __slots__ = ()

    # -- calls ---------------------------------------------------------------------------------

    @overload
    def call_activity(
        self,
        fn: Callable[[ActivityContext], Awaitable[R]] | Callable[[], Awaitable[R]],
        input: None = None,
        *,
        result_type: None = None,
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[R]: ...
    @overload
    def call_activity(
        self,
        fn: Callable[[ActivityContext, I], Awaitable[R]]
        | Callable[[I, ActivityContext], Awaitable[R]]
        | Callable[[I], Awaitable[R]],
        input: I,
        *,
        result_type: None = None,
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[R]: ...
    @overload
    def call_activity(
        self,
        fn: Callable[[ActivityContext], R] | Callable[[], R],
        input: None = None,
        *,
        result_type: None = None,
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[R]: ...
    @overload
    def call_activity(
        self,
        fn: Callable[[ActivityContext, I], R]
        | Callable[[I, ActivityContext], R]
        | Callable[[I], R],
        input: I,
        *,
        result_type: None = None,
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[R]: ...
    @overload
    def call_activity(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        result_type: type[R],
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[R]: ...
    @overload
    def call_activity(
        self,
        fn: str,
        input: Any = None,
        *,
        result_type: Any = None,
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[Any]: ...
    def call_activity(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,  # noqa: A002
        *,
        result_type: Any = None,
        **options: Unpack[CallOptions],
    ) -> asyncio.Future[Any]:
        """Run an activity and return its result to be. It raises `ActivityFailed`.

        Args:
            fn: the function, or the name of an activity, which may live elsewhere.
            input: its one input.
            result_type: what to make of the result; else the activity's annotation.
            **options: `retry`, and in seconds or as timedelta `timeout` (for each attempt),
                `heartbeat_timeout` (longest silence) and `total_timeout` (for all attempts),
                and `limit_key` (which one of its limit this call counts for);
                else what the activity was registered with.

        Raises:
            InputInvalid: the input has no JSON form, or the limit key makes no sense.
            ActivityNotRegistered: the function is no activity of this app.
        """
        try:
            known: ActivityDefinition | None = self._registry.find_activity(fn)
        except ActivityNotRegistered:
            if not isinstance(fn, str):
                raise
            known = None
        name = fn if known is None else known.name
        assert isinstance(name, str)
        if input is not None and known is not None and not known.binding.takes_input:
            raise InputInvalid(f"activity {name!r} takes no input")
        payload = encode(input, "input of activity", name)
        quota = None
        if options or (known is not None and known.limit is not None):
            quota = _quota(name, known, input, options)
        ledger = self._ledger
        if ledger.permits is not None and not ledger.inert:
            ledger.permits.ask(SchedulingSource.ACTIVITY, name, payload)
        task_id = ledger.new_id()
        if options or known is None:
            action = _task_scheduled(task_id, name, payload, known, quota, options)
        else:
            action = TaskScheduled(
                task_id, name, payload, known.retry, known.timeout, known.speculative, quota
            )
        ledger.emit(action)
        return self._call(task_id, name, known, result_type, ActivityFailed)

    @overload
    def call_sub_orchestrator(
        self,
        fn: Callable[[OrchestrationContext], Awaitable[R]] | Callable[[], Awaitable[R]],
        input: None = None,
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        result_type: None = None,
        version: str | None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        fn: Callable[[OrchestrationContext, I], Awaitable[R]]
        | Callable[[I, OrchestrationContext], Awaitable[R]]
        | Callable[[I], Awaitable[R]],
        input: I,
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        result_type: None = None,
        version: str | None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        result_type: type[R],
        version: str | None = None,
    ) -> asyncio.Future[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        fn: str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        result_type: Any = None,
        version: str | None = None,
    ) -> asyncio.Future[Any]: ...
    def call_sub_orchestrator(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,  # noqa: A002
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        result_type: Any = None,
        version: str | None = None,
    ) -> asyncio.Future[Any]:
        """Run another orchestrator and return its result to be. It raises `SubOrchestrationFailed`.

        Args:
            fn: the function, or the name of an orchestrator, which may live elsewhere.
            input: its one input.
            instance_id: of the child; else derived from this execution's.
            retry: when to start it again after a failure.
            result_type: what to make of the result; else the orchestrator's annotation.
            version: of the orchestrator; else that of the function, or the newest here.
        """
        try:
            known: OrchestratorDefinition | None = self._registry.find_orchestrator(fn, version)
        except OrchestratorNotRegistered:
            if not isinstance(fn, str):
                raise
            known = None
        name = fn if known is None else known.name
        assert isinstance(name, str)
        payload = encode(input, "input of orchestrator", name)
        ledger = self._ledger
        if ledger.section is not None:
            ledger.section.refuse("no sub-orchestration can be started")
        task_id = ledger.new_id()
        child_id = instance_id or f"{self._instance_id}:{self._execution_id[:8]}:{task_id:04x}"
        if ledger.permits is not None and not ledger.inert:
            ledger.permits.ask(SchedulingSource.CHILD, name, payload, child_id)
        child = SubOrchestrationInstanceCreated(
            task_id,
            child_id,
            name,
            payload,
            version if version is not None or known is None else known.version,
            None if retry is None else retry.as_retry(),
        )
        ledger.emit(child)
        return self._call(task_id, name, known, result_type, SubOrchestrationFailed)

    def _call(
        self,
        task_id: int,
        name: str,
        known: ActivityDefinition | OrchestratorDefinition | None,
        result_type: Any,
        failed: type[ActivityFailed | SubOrchestrationFailed],
    ) -> CallFuture[Any]:
        future: CallFuture[Any] = CallFuture(loop=self._loop)
        future.ledger = self._ledger
        future.task_id = task_id
        future.name = name
        future.failed = failed
        if result_type is not None:
            future.codec = codec_for(result_type)
        else:
            future.codec = ANY if known is None else known.binding.result_codec()
        self._ledger.pending[task_id] = future
        return future

    def create_timer(self, when: datetime | timedelta) -> asyncio.Future[None]:
        """Return what is done at a time, or after a duration. Naive datetimes are UTC."""
        if isinstance(when, datetime):
            aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
            fire_at = (aware - EPOCH) // MICROSECOND
        else:
            fire_at = self._ledger.now + microseconds(when)
        future = TimerFuture(loop=self._loop)
        future.handle = self._loop.call_at_us(fire_at, _finish, (future,))  # type: ignore[assignment]
        return future

    # -- events --------------------------------------------------------------------------------

    @overload
    def wait_for_event(
        self,
        name: str,
        type: type[T],
        *,
        timeout: Duration | None = None,
    ) -> asyncio.Future[T]: ...
    @overload
    def wait_for_event(
        self,
        name: str,
        type: Any = Any,
        *,
        timeout: Duration | None = None,
    ) -> asyncio.Future[Any]: ...
    def wait_for_event(
        self,
        name: str,
        type: Any = Any,  # noqa: A002
        *,
        timeout: Duration | None = None,
    ) -> asyncio.Future[Any]:
        """Return the data to be of the next external event of that name.

        Events that come before anybody waits are kept. Names compare without case. Who
        waits first is served first.

        Args:
            name: of the event.
            type: what to make of its data.
            timeout: seconds or timedelta; then the wait raises TimeoutError.
        """
        ledger = self._ledger
        if ledger.inert:
            ledger.refuse()
        future: EventFuture[Any] = EventFuture(loop=self._loop)
        future.ledger = ledger
        future.name = name
        future.codec = codec_for(type)
        future.handle = None
        ledger.mailbox().wait(name, future)
        if timeout is not None and not future.done():
            fire_at = ledger.now + microseconds(timeout)
            try:
                future.handle = self._loop.call_at_us(fire_at, future.expire, ())  # type: ignore[assignment]
            except BaseException:
                future.cancel()  # or it would take the event, and nobody would get it
                raise
        return future

    def send_event(self, instance_id: str, name: str, data: object = None) -> None:
        """Raise an external event on another instance. Takes effect with this turn."""
        payload = encode(data, "event", name)
        ledger = self._ledger
        if ledger.permits is not None and not ledger.inert:
            ledger.permits.ask(SchedulingSource.EVENT, name, payload, instance_id)
        ledger.emit(EventSent(ledger.new_id(), instance_id, name, payload))

    # -- state ---------------------------------------------------------------------------------

    def set_custom_status(self, value: object) -> None:
        """Show `value` as the custom status. Takes effect with this turn; None clears it."""
        payload = encode(value, "custom status")
        if self._ledger.inert:
            self._ledger.refuse()
        self._ledger.custom_status = payload

    def continue_as_new(
        self,
        input: object = None,  # noqa: A002
        *,
        carry_events: bool = True,
        version: str | None = None,
    ) -> None:
        """Start over with a fresh history once the body returns; its return value is ignored.

        Args:
            input: of the next execution.
            carry_events: whether events that nobody has waited for yet go with it.
            version: of the code from then on; default: the same as so far.
        """
        payload = encode(input, "input of orchestrator", self.name)
        if version is not None and not isinstance(version, str):
            raise TypeError(f"a version is a text, not {version!r}")
        if self._ledger.inert:
            self._ledger.refuse()
        if self._ledger.section is not None:
            self._ledger.section.refuse("the orchestration cannot continue as new")
        self._ledger.continued = (payload, carry_events, version)


def _task_scheduled(
    task_id: int,
    name: str,
    payload: Raw,
    known: ActivityDefinition | None,
    quota: Quota | None,
    options: CallOptions,
) -> TaskScheduled:
    timeout = options.get("timeout")
    limit = None if timeout is None else microseconds(timeout)
    retry = attempts_of(
        None if known is None else known.retry,
        options.get("retry"),
        options.get("heartbeat_timeout"),
        options.get("total_timeout"),
    )
    if known is None:
        return TaskScheduled(task_id, name, payload, retry, limit)
    limit = known.timeout if limit is None else limit
    return TaskScheduled(task_id, name, payload, retry, limit, known.speculative, quota)


def _quota(
    name: str, known: ActivityDefinition | None, call_input: object, options: CallOptions
) -> Quota | None:
    key = options.get("limit_key") if options else None
    if known is not None and known.limit is not None:
        return quota_of(known, call_input, key)
    if key is not None:
        raise InputInvalid(f"activity {name!r} has no limit here that {key!r} could be a key of")
    return None


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
