"""The blocking client: the same names, for programs without an event loop.

It runs the async client on a loop of its own in a background thread, so that its connection
lives on between calls. Any thread may call it.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Generic, Self, overload

from shardrt.client.client import Client
from shardrt.client.sync_entities import SyncEntities
from shardrt.client.sync_schedules import SyncSchedules
from shardrt.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Unpack

    from typing_extensions import TypeVar  # with defaults; at run time they do not matter

    from shardrt.client.explaining import Explanation
    from shardrt.client.handle import OrchestrationHandle
    from shardrt.client.limits import LimitStatus
    from shardrt.client.starting import (
        ExecuteOptions,
        I,
        StartOptions,
        StartRequest,
        WithInput,
        WithoutInput,
    )
    from shardrt.client.views import HistoryEvent, OrchestrationStatus
    from shardrt.core.history import Status
    from shardrt.orchestration.sealing import PayloadCodec

    R = TypeVar("R", default=Any)
    T = TypeVar("T")
else:
    from typing import TypeVar

    R = TypeVar("R")


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="shardrt-client", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait for it here; an interrupt here cancels it there."""
        if self._loop.is_closed():
            coroutine.close()
            raise ConnectionLost("the client was closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncClient(SyncEntities, SyncSchedules):
    """`Client`, blocking. Get one from `SyncClient.connect`; close it, or use ``with``."""

    def __init__(self, thread: _LoopThread, client: Client) -> None:
        self._thread = thread
        self._client = client
        self._closed = False

    @classmethod
    def connect(  # noqa: PLR0913 - all that one wants to say here
        cls,
        url: str | Sequence[str],
        *,
        token: str | None = None,
        ca_file: str | None = None,
        connect_timeout_s: float = 0.0,
        call_timeout_s: float = 60.0,
        retry_overloaded: bool = True,
        payload_codec: PayloadCodec | None = None,
    ) -> Self:
        """Connect to a host; see `Client.connect`."""
        thread = _LoopThread()
        try:
            client = thread.run(
                Client.connect(
                    url,
                    token=token,
                    ca_file=ca_file,
                    connect_timeout_s=connect_timeout_s,
                    call_timeout_s=call_timeout_s,
                    retry_overloaded=retry_overloaded,
                    payload_codec=payload_codec,
                )
            )
        except BaseException:
            thread.stop()
            raise
        return cls(thread, client)

    def close(self) -> None:
        """End the connection and its thread."""
        if not self._closed:
            self._closed = True
            try:
                self._thread.run(self._client.close())
            finally:
                self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @overload
    def start(
        self, orchestrator: WithoutInput[R], input: None = None, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[R]: ...
    @overload
    def start(
        self, orchestrator: WithInput[I, R], input: I, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[R]: ...
    @overload
    def start(
        self, orchestrator: str, input: Any = None, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[Any]: ...
    def start(self, orchestrator: Any, input: Any = None, **options: Any) -> Any:  # noqa: A002
        """Start an instance; see `Client.start`."""
        handle = self._thread.run(self._client.start(orchestrator, input, **options))
        return SyncOrchestrationHandle(self, handle)

    @overload
    def execute(
        self, orchestrator: WithoutInput[R], input: None = None, **options: Unpack[ExecuteOptions]
    ) -> R: ...
    @overload
    def execute(
        self, orchestrator: WithInput[I, R], input: I, **options: Unpack[ExecuteOptions]
    ) -> R: ...
    @overload
    def execute(
        self, orchestrator: str, input: Any = None, **options: Unpack[ExecuteOptions]
    ) -> Any: ...
    def execute(self, orchestrator: Any, input: Any = None, **options: Any) -> Any:  # noqa: A002
        """Start an instance and return its output once it has ended; see `Client.execute`."""
        return self._thread.run(self._client.execute(orchestrator, input, **options))

    def start_many(self, wanted: Iterable[StartRequest]) -> list[SyncOrchestrationHandle]:
        """Start many instances; see `Client.start_many`."""
        handles = self._thread.run(self._client.start_many(wanted))
        return [SyncOrchestrationHandle(self, handle) for handle in handles]

    @overload
    def handle(
        self, instance_id: str, orchestrator: WithoutInput[R] | WithInput[Any, R]
    ) -> SyncOrchestrationHandle[R]: ...
    @overload
    def handle(self, instance_id: str, orchestrator: str = "") -> SyncOrchestrationHandle[Any]: ...
    def handle(self, instance_id: str, orchestrator: Any = "") -> SyncOrchestrationHandle[Any]:
        """Return a handle of an instance that was started elsewhere."""
        return SyncOrchestrationHandle(self, self._client.handle(instance_id, orchestrator))

    def get(self, instance_id: str, *, history: bool = False) -> OrchestrationStatus | None:
        """Return how an instance stands; None: there is none."""
        return self._thread.run(self._client.get(instance_id, history=history))

    def history(self, instance_id: str) -> list[HistoryEvent]:
        """Return the history of the current execution."""
        return self._thread.run(self._client.history(instance_id))

    def export(self, instance_id: str) -> bytes:
        """Return an instance with its history as JSON; see `Client.export`."""
        return self._thread.run(self._client.export(instance_id))

    def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Deliver an external event."""
        self._thread.run(self._client.raise_event(instance_id, name, data))

    def explain(self, instance_id: str) -> Explanation:
        """Return why an instance does not move; see `Client.explain`."""
        return self._thread.run(self._client.explain(instance_id))

    def terminate(self, instance_id: str, reason: str = "", *, recursive: bool = True) -> None:
        """End an instance from outside."""
        self._thread.run(self._client.terminate(instance_id, reason, recursive=recursive))

    def cancel(self, instance_id: str, reason: str = "") -> None:
        """Cancel an instance, which may clean up first; see `Client.cancel`."""
        self._thread.run(self._client.cancel(instance_id, reason))

    def suspend(self, instance_id: str, reason: str = "") -> None:
        """Pause an instance."""
        self._thread.run(self._client.suspend(instance_id, reason))

    def resume(self, instance_id: str, reason: str = "") -> None:
        """Let a suspended instance go on."""
        self._thread.run(self._client.resume(instance_id, reason))

    def rewind(self, instance_id: str, reason: str = "") -> None:
        """Run again what failed in a failed instance."""
        self._thread.run(self._client.rewind(instance_id, reason))

    def restart(self, instance_id: str) -> SyncOrchestrationHandle:
        """Start an instance that has ended anew."""
        return SyncOrchestrationHandle(self, self._thread.run(self._client.restart(instance_id)))

    def purge(self, instance_id: str, *, force: bool = False) -> int:
        """Delete an instance that has ended; return how many were deleted."""
        return self._thread.run(self._client.purge(instance_id, force=force))

    def limits(self, name: str | None = None) -> list[LimitStatus]:
        """Return the limits that are in use; see `Client.limits`."""
        return self._thread.run(self._client.limits(name))

    def list(  # noqa: PLR0913 - one per condition
        self,
        *,
        status: Status | str | Sequence[Status | str] | None = None,
        name: str | None = None,
        id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        completed_from: datetime | None = None,
        completed_to: datetime | None = None,
        tags: dict[str, str] | None = None,
        page_size: int = 100,
    ) -> Iterator[OrchestrationStatus]:
        """Iterate over instances, oldest first; see `Client.list`."""
        instances = self._client.list(
            status=status,
            name=name,
            id_prefix=id_prefix,
            created_from=created_from,
            created_to=created_to,
            completed_from=completed_from,
            completed_to=completed_to,
            tags=tags,
            page_size=page_size,
        )
        while (one := self._thread.run(_next(instances))) is not None:
            yield one

    def count(self, **conditions: Any) -> dict[str, int]:
        """Return how many instances there are per status; see `Client.count`."""
        return self._thread.run(self._client.count(**conditions))

    def purge_where(self, **conditions: Any) -> int:
        """Delete instances that have ended; see `Client.purge_where`."""
        return self._thread.run(self._client.purge_where(**conditions))

    def cluster(self) -> dict[str, Any]:
        """Return what the host knows of hosts, shards and partitions."""
        return self._thread.run(self._client.cluster())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the async client on its loop, and wait for it."""
        return self._thread.run(coroutine)


async def _next(instances: Any) -> OrchestrationStatus | None:
    found: OrchestrationStatus | None = await anext(instances, None)
    return found


class SyncOrchestrationHandle(Generic[R]):
    """One instance, blocking. Made by `SyncClient.start` and `SyncClient.handle`."""

    __slots__ = ("_client", "_handle")

    def __init__(self, client: SyncClient, handle: OrchestrationHandle[R]) -> None:
        self._client = client
        self._handle = handle

    def __repr__(self) -> str:
        return f"SyncOrchestrationHandle({self.instance_id!r})"

    @property
    def instance_id(self) -> str:
        return self._handle.instance_id

    @overload
    def result(self, timeout: float | None = None, type: None = None) -> R: ...
    @overload
    def result(self, timeout: float | None = None, *, type: type[T]) -> T: ...
    @overload
    def result(self, timeout: float | None = None, *, type: Any) -> Any: ...
    def result(self, timeout: float | None = None, type: Any = None) -> Any:  # noqa: A002
        """Wait until the instance has ended; see `OrchestrationHandle.result`."""
        return self._client.run(self._handle.result(timeout, type=type))

    def status(self, *, history: bool = False) -> OrchestrationStatus | None:
        """Return how it stands."""
        return self._client.get(self.instance_id, history=history)

    def history(self) -> list[HistoryEvent]:
        return self._client.history(self.instance_id)

    def raise_event(self, name: str, data: Any = None) -> None:
        self._client.raise_event(self.instance_id, name, data)

    def terminate(self, reason: str = "", *, recursive: bool = True) -> None:
        self._client.terminate(self.instance_id, reason, recursive=recursive)

    def cancel(self, reason: str = "") -> None:
        self._client.cancel(self.instance_id, reason)

    def suspend(self, reason: str = "") -> None:
        self._client.suspend(self.instance_id, reason)

    def resume(self, reason: str = "") -> None:
        self._client.resume(self.instance_id, reason)

    def rewind(self, reason: str = "") -> None:
        self._client.rewind(self.instance_id, reason)

    def restart(self) -> SyncOrchestrationHandle[R]:
        self._client.restart(self.instance_id)
        return self

    def purge(self) -> int:
        return self._client.purge(self.instance_id)
