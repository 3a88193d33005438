"""The part of the client that starts instances."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, cast, overload

from shardrt.client.handle import OrchestrationHandle, output_of, within
from shardrt.client.starting import StartRequest, result_codec_of, start_of
from shardrt.orchestration.payload import codec_for

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime, timedelta
    from typing import Unpack

    from msgspec import Raw

    from shardrt.client.client import Client
    from shardrt.client.session import Session
    from shardrt.client.starting import (
        ExecuteOptions,
        I,
        OnConflict,
        Orchestrator,
        R,
        StartOptions,
        WithInput,
        WithoutInput,
    )
    from shardrt.core.requests import Request, Result, Snapshot, Start
    from shardrt.orchestration.sealing import Sealer

START_WINDOW = 1000
"""How many starts of one `start_many` are under way at a time."""


class StartClient:
    """The methods of `Client` that start instances."""

    _session: Session
    _sealer: Sealer | None
    _payload_bytes_max: Callable[[], int]
    _managed: Callable[[str, Request], Awaitable[Result | None]]
    _opened: Callable[[Snapshot], Snapshot]

    @overload
    async def start(
        self, orchestrator: WithoutInput[R], input: None = None, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start(
        self, orchestrator: WithInput[I, R], input: I, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start(
        self, orchestrator: str, input: Any = None, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[Any]: ...
    async def start(  # noqa: PLR0913 - one per property of an instance
        self,
        orchestrator: Orchestrator,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | None = None,
        on_conflict: OnConflict = "fail",
        tags: dict[str, str] | None = None,
        version: str | None = None,
    ) -> OrchestrationHandle[Any]:
        """Start an instance; when this returns it is durable.

        Args:
            orchestrator: the registered function, or its name. With the function,
                `result()` decodes to the annotated type.
            input: any value with a JSON form.
            instance_id: default: a new one of 32 hex digits; what is made later sorts later.
            start_at: not before this time; default: now. Naive times are UTC.
            on_conflict: if the id exists: ``fail`` (`InstanceExists`), ``return`` the one
                that is there, or ``restart`` it if it has ended.
            tags: to find it by in `list`.
            version: of the orchestrator; default: the function's, else the host's latest.
        """
        wanted = StartRequest(
            orchestrator, input, instance_id, start_at, on_conflict, tags, version
        )
        chosen_id, request = self._start_of(wanted)
        if request.trace:
            await self._managed(chosen_id, request)
        else:
            await self._session.submit(chosen_id, request)
        return self._handle(chosen_id, orchestrator)

    @overload
    async def execute(
        self, orchestrator: WithoutInput[R], input: None = None, **options: Unpack[ExecuteOptions]
    ) -> R: ...
    @overload
    async def execute(
        self, orchestrator: WithInput[I, R], input: I, **options: Unpack[ExecuteOptions]
    ) -> R: ...
    @overload
    async def execute(
        self, orchestrator: str, input: Any = None, **options: Unpack[ExecuteOptions]
    ) -> Any: ...
    async def execute(  # noqa: PLR0913 - one per property of an instance
        self,
        orchestrator: Orchestrator,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as for results
        type: Any = None,  # noqa: A002 - as for results
        instance_id: str | None = None,
        start_at: datetime | timedelta | None = None,
        on_conflict: OnConflict = "fail",
        tags: dict[str, str] | None = None,
        version: str | None = None,
    ) -> Any:
        """Start an instance, wait until it has ended, and return its output.

        As `start` and then `OrchestrationHandle.result`, with all that they may raise, but in one
        request, unless it is traced or `on_conflict` is ``return``. It need not be short: once it
        is durable it goes on whatever happens here. If this is cancelled, times out or fails with
        `ConnectionLost`, it may have been started or not: with an id and ``return`` one finds out.
        What is waited for is the end of whatever has the id, as with any handle.

        Args:
            orchestrator: as for `start`, like all below.
            input: any value with a JSON form.
            timeout: seconds for all of it; it ends the waiting, not the instance.
            type: of the output; default: what the function is annotated with.
            instance_id: default: a new one.
            start_at: not before this time.
            on_conflict: if the id exists: ``fail``, wait for the one that is there (``return``), or
                ``restart`` it if it has ended.
            tags: to find it by in `list`.
            version: of the orchestrator.
        """
        wanted = StartRequest(
            orchestrator, input, instance_id, start_at, on_conflict, tags, version
        )
        chosen_id, request = self._start_of(wanted)
        codec = result_codec_of(orchestrator) if type is None else codec_for(type)
        end = self._end_of(chosen_id, request)
        if timeout is not None:
            end = within(timeout, end, cast("Client", self), chosen_id)
        return output_of(await end, codec)

    async def _end_of(self, instance_id: str, start: Start) -> Snapshot:
        if start.trace:
            await self._managed(instance_id, start)
            return self._opened(await self._session.wait(instance_id))
        return self._opened(await self._session.execute(instance_id, start))

    async def start_many(self, wanted: Iterable[StartRequest]) -> list[OrchestrationHandle]:
        """Start many instances, pipelined; return their handles in order.

        The first refusal is raised, after those under way are answered; instances before and
        after it may have been started.
        """
        handles: list[OrchestrationHandle] = []
        under_way: deque[tuple[StartRequest, str, Future[Raw]]] = deque()
        refused: Exception | None = None
        remaining = iter(wanted)
        while True:
            one = None if refused else next(remaining, None)
            if one is not None:
                under_way.append((one, *self._submit_start(one)))
            if not under_way:
                break
            if one is None or len(under_way) >= START_WINDOW:
                first, instance_id, started = under_way.popleft()
                try:
                    await started
                    handles.append(self._handle(instance_id, first.orchestrator))
                except Exception as error:  # noqa: BLE001 - raised below
                    refused = refused or error
        if refused is not None:
            raise refused
        return handles

    def _start_of(self, wanted: StartRequest) -> tuple[str, Start]:
        return start_of(wanted, self._payload_bytes_max(), self._sealer)

    def _submit_start(self, wanted: StartRequest) -> tuple[str, Future[Raw]]:
        instance_id, request = self._start_of(wanted)
        return instance_id, self._session.submit(instance_id, request)

    def _handle(self, instance_id: str, orchestrator: Orchestrator) -> OrchestrationHandle[Any]:
        this = cast("Client", self)
        return OrchestrationHandle(this, instance_id, result_codec_of(orchestrator))
