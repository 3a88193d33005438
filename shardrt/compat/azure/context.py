"""The context of an orchestrator, in Azure's words, over that of an execution of ours."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from shardrt.compat.azure.http_calls import HTTP_ACTIVITY, request_shape, seconds_to_next_look
from shardrt.compat.azure.naming import name_of, result_type_of
from shardrt.compat.azure.tasks import Task, TimerTask, WhenAll, WhenAny
from shardrt.compat.azure.values import from_input, from_payload, to_input, to_payload
from shardrt.orchestration.entity_id import EntityId
from shardrt.orchestration.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from shardrt.orchestration.context import OrchestrationContext
    from shardrt.orchestration.critical_section import CriticalSection


class DurableOrchestrationContext:
    """One execution, as its generator sees it; the names are those of Azure's Python package."""

    def __init__(self, ctx: OrchestrationContext, input_type: type | None = None) -> None:
        self._ctx = ctx
        self._input_type = input_type
        self._custom_status: Any = None
        self.will_continue_as_new = False
        """Whether `continue_as_new` was called."""

    # -- facts ----------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        return self._ctx.instance_id

    @property
    def parent_instance_id(self) -> str | None:
        return self._ctx.parent_instance_id

    @property
    def is_replaying(self) -> bool:
        return self._ctx.is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of this turn, aware, in UTC."""
        return self._ctx.current_utc_datetime

    @property
    def version(self) -> str | None:
        return self._ctx.version

    @property
    def function_context(self) -> SimpleNamespace:
        return SimpleNamespace(function_name=self._ctx.name)

    @property
    def custom_status(self) -> Any:
        """What was set by this execution."""
        return self._custom_status

    @property
    def histories(self) -> Any:
        raise NotImplementedError("ask a client for the history of an instance")

    def get_input(self, expected_type: type | None = None) -> Any:
        """Return the input."""
        payload = self._ctx.get_input(Raw)
        with self._ctx.unguarded():  # the codec reads a variable of the environment
            return from_input(payload, expected_type or self._input_type)

    def new_uuid(self) -> str:
        """Return a new UUID, as text, that is the same in a replay."""
        return str(self._ctx.new_uuid())

    def new_guid(self) -> UUID:
        """Return a new UUID that is the same in a replay."""
        return self._ctx.new_uuid()

    # -- calls ----------------------------------------------------------------------------------

    def call_activity(
        self, name: Any, input_: Any = None, expected_type: type | None = None
    ) -> Task:
        """Run an activity."""
        return self._activity(name, input_, expected_type, None)

    def call_activity_with_retry(
        self, name: Any, retry_options: Any, input_: Any = None, expected_type: type | None = None
    ) -> Task:
        """Run an activity, again if it fails."""
        return self._activity(name, input_, expected_type, _policy(retry_options))

    def _activity(
        self, name: Any, value: Any, expected_type: type | None, retry: RetryPolicy | None
    ) -> Task:
        called = name_of(name, "activityTrigger")
        payload = self._coded(to_payload, value, f"input of activity {called!r}")
        return self._task(
            lambda: self._ctx.call_activity(called, payload, result_type=Raw, retry=retry),
            expected_type or result_type_of(name),
        )

    def call_sub_orchestrator(
        self,
        name: Any,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: type | None = None,
    ) -> Task:
        """Run another orchestrator."""
        return self._child(name, None, input_, instance_id, version, expected_type)

    def call_sub_orchestrator_with_retry(
        self,
        name: Any,
        retry_options: Any,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: type | None = None,
    ) -> Task:
        """Run another orchestrator, again if it fails."""
        policy = _policy(retry_options)
        return self._child(name, policy, input_, instance_id, version, expected_type)

    def _child(
        self,
        name: Any,
        retry: RetryPolicy | None,
        value: Any,
        instance_id: str | None,
        version: str | None,
        expected_type: type | None,
    ) -> Task:
        called = name_of(name, "orchestrationTrigger")
        payload = self._coded(to_input, value, f"input of orchestrator {called!r}")

        def begin() -> asyncio.Future[Raw]:
            return self._ctx.call_sub_orchestrator(
                called,
                payload,
                instance_id=instance_id,
                retry=retry,
                result_type=Raw,
                version=version,
            )

        # Not by what a function says that it returns: Azure's package has put another one
        # around it, which returns a text.
        return self._task(begin, expected_type)

    def call_http(
        self,
        method: str,
        uri: str,
        content: Any = None,
        headers: dict[str, str] | None = None,
        token_source: Any = None,
        is_raw_str: bool = False,
    ) -> Task:
        """Make an HTTP request; one that is answered 202 with a Location is followed there.

        The result is a dict: ``statusCode``, ``headers``, ``content``. A status of 400 or more is
        no failure.
        """
        if token_source is not None:
            raise NotImplementedError("there are no managed identities here: set a header")
        request = request_shape(method, uri, content, headers, is_raw_str)
        return Task(lambda: asyncio.get_running_loop().create_task(self._http(request)))

    async def _http(self, request: dict[str, Any]) -> Any:
        ctx = self._ctx
        answer = await ctx.call_activity(HTTP_ACTIVITY, request)
        while (wait_s := seconds_to_next_look(answer)) is not None:
            await ctx.create_timer(timedelta(seconds=wait_s))
            request = request | {"method": "GET", "uri": answer["location"], "content": None}
            answer = await ctx.call_activity(HTTP_ACTIVITY, request)
        return {name: answer[name] for name in ("statusCode", "headers", "content")}

    # -- entities -------------------------------------------------------------------------------

    def call_entity(
        self,
        entityId: Any,  # noqa: N803 - as Azure calls it
        operationName: str,  # noqa: N803
        operationInput: Any = None,  # noqa: N803
        expected_type: type | None = None,
    ) -> Task:
        """Have an entity do something, and wait for what it answers."""
        payload = self._coded(to_input, operationInput, f"input of {operationName!r}")
        entity = _entity(entityId)
        return self._task(
            lambda: self._ctx.call_entity(entity, operationName, payload, result_type=Raw),
            expected_type,
        )

    def signal_entity(
        self,
        entityId: Any,  # noqa: N803 - as Azure calls it
        operationName: str,  # noqa: N803
        operationInput: Any = None,  # noqa: N803
    ) -> None:
        """Have an entity do something; nobody hears how it went. There is nothing to yield."""
        payload = self._coded(to_input, operationInput, f"input of {operationName!r}")
        self._ctx.signal_entity(_entity(entityId), operationName, payload)

    def lock(self, *entities: Any) -> Task:
        """Have entities for this orchestration alone: ``with (yield context.lock(a, b)): …``.

        Not in Azure's Python package, but in its other ones.
        """
        section = self._ctx.lock(*(_entity(each) for each in entities))

        async def enter() -> _Held:
            await section.__aenter__()
            return _Held(section)

        return Task(lambda: asyncio.get_running_loop().create_task(enter()))

    # -- waiting --------------------------------------------------------------------------------

    def create_timer(self, fire_at: datetime) -> TimerTask:
        """Wait until a time; a naive one is UTC."""
        return TimerTask(lambda: self._ctx.create_timer(fire_at))

    def wait_for_external_event(self, name: str, expected_type: type | None = None) -> Task:
        """Wait for an event from outside."""
        return self._task(lambda: self._ctx.wait_for_event(name, Raw), expected_type)

    def task_all(self, activities: Sequence[Task]) -> WhenAll:
        """Wait for all of the tasks; their results come as a list."""
        return WhenAll(activities)

    def task_any(self, activities: Sequence[Task]) -> WhenAny:
        """Wait for the first of the tasks, which is the result itself."""
        return WhenAny(activities)

    # -- state ----------------------------------------------------------------------------------

    def set_custom_status(self, status: Any) -> None:
        """Show a value as the custom status."""
        self._ctx.set_custom_status(self._coded(to_payload, status, "custom status"))
        self._custom_status = status

    def continue_as_new(self, input_: Any) -> None:
        """Start over with a fresh history. What the code does after this is not run any more.

        Events that nobody has waited for go with it, where Azure's host would drop them.
        """
        self._ctx.continue_as_new(self._coded(to_input, input_, "input"))
        self.will_continue_as_new = True

    # -------------------------------------------------------------------------------------------

    def _task(
        self, begin: Callable[[], asyncio.Future[Raw]], expected_type: type | None = None
    ) -> Task:
        def decode(payload: Raw) -> Any:
            with self._ctx.unguarded():
                return from_payload(payload, expected_type)

        return Task(begin, decode)

    def _coded(self, code: Callable[[object, str], Raw], value: object, what: str) -> Raw:
        with self._ctx.unguarded():
            return code(value, what)


class _Held:
    """Entities that are locked until the block ends."""

    def __init__(self, section: CriticalSection) -> None:
        self._section = section

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc_info: object) -> None:
        self._section.release()


def _policy(options: Any) -> RetryPolicy:
    """Return Azure's retry options, whose interval is constant."""
    interval = timedelta(milliseconds=options.first_retry_interval_in_milliseconds)
    return RetryPolicy(
        max_attempts=options.max_number_of_attempts,
        first_interval=interval,
        backoff=1.0,
        max_interval=None,
        jitter=0.0,
    )


def _entity(entity: Any) -> EntityId:
    return EntityId(entity.name, entity.key)
