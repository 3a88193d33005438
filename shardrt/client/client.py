"""The async client: start, query and signal orchestrations from anywhere."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, overload

import msgspec

from shardrt.client.dialing import in_process, over_websocket, urls_of
from shardrt.client.entities import EntityClient
from shardrt.client.explaining import Explanation, explain
from shardrt.client.filters import SnapshotPages, filter_of
from shardrt.client.handle import OrchestrationHandle
from shardrt.client.limits import all_limits
from shardrt.client.purging import purge_where
from shardrt.client.schedules import ScheduleClient
from shardrt.client.session import Session
from shardrt.client.starting import (
    Orchestrator,
    check_instance_id,
    encode_payload,
    result_codec_of,
)
from shardrt.client.starts import StartClient
from shardrt.client.views import HistoryEvent, OrchestrationStatus, history_of, status_of
from shardrt.core import requests
from shardrt.core.history import FINAL, Status
from shardrt.errors import InstanceNotFound
from shardrt.links.admin import Cluster, CountInstances
from shardrt.orchestration.sealing import sealer_of
from shardrt.tracing.joining import current_trace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime
    from types import TracebackType

    from msgspec import Raw

    from shardrt.client.limits import LimitStatus
    from shardrt.client.starting import R, WithInput, WithoutInput
    from shardrt.core.requests import Request, Snapshot
    from shardrt.links.admin import Question
    from shardrt.links.base import Accept
    from shardrt.links.messages import Welcome
    from shardrt.orchestration.sealing import PayloadCodec

PAYLOAD_BYTES_MAX = 4 * 1024 * 1024
"""Until a host has said what it takes."""

NAME_CHARS_MAX = 1024


class Client(StartClient, EntityClient, ScheduleClient):
    """Talks to a hub through any of its hosts. Get one from `Client.connect`; close it.

    Every call may raise what the host refuses it with (see `shardrt.errors`), and
    `ConnectionLost` if no host could be reached within `call_timeout_s`. A call that was
    answered is durable. Calls are pipelined: thousands may be under way, and those made in
    one turn of the loop travel together.
    """

    def __init__(
        self, session: Session, payload_codec: PayloadCodec | None = None, tracer: Any = None
    ) -> None:
        self._session = session
        self._tracer = tracer
        """OpenTelemetry's, for calls within a span; None: that of the program's provider."""
        self._sealer = sealer_of(payload_codec)

    @classmethod
    async def connect(  # noqa: PLR0913 - all that one wants to say here
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
        """Connect to a host.

        Args:
            url: of a host, or of several hosts of one hub, with commas between them or as a
                list: http(s):// or ws(s)://. Each gets a link, and requests go to the host
                that serves the instance; when a link fails the client goes on by the others,
                with what was under way.
            token: if the host asks for one.
            ca_file: PEM file of the authorities by which an https:// host is trusted; default:
                the system's.
            connect_timeout_s: how long to keep trying if there is no host yet.
            call_timeout_s: how long a call may take altogether, reconnecting and retrying
                included, before it fails with `ConnectionLost`. Waiting for results has no
                limit but the caller's.
            retry_overloaded: whether calls that are refused as `Overloaded` are tried again
                until then. If so, starts that a host has no room for wait in the client;
                otherwise they fail at once, unsent (see `is_overloaded`).
            payload_codec: that of the app, if it has one.

        Raises:
            ConfigInvalid: `url` is none.
            ConnectionLost: the host cannot be reached.
            Unauthorized: the host does not take the token.
            Untrusted: its certificate is not of these authorities, or for another name.
        """
        urls = urls_of(url)
        dials = [
            over_websocket(each, token, ca_file, is_one_of_many=len(urls) > 1) for each in urls
        ]
        session = Session(*dials, call_timeout_s=call_timeout_s, retry_overloaded=retry_overloaded)
        await session.open(connect_timeout_s)
        return cls(session, payload_codec)

    @classmethod
    async def connect_in_process(
        cls,
        accept: Accept,
        welcome: Welcome,
        *,
        call_timeout_s: float = 60.0,
        payload_codec: PayloadCodec | None = None,
        tracer: Any = None,
    ) -> Self:
        """Connect to a shard in this event loop; see `dialing.in_process`."""
        session = Session(in_process(accept, welcome), call_timeout_s=call_timeout_s)
        await session.open()
        return cls(session, payload_codec, tracer)

    async def close(self) -> None:
        """End the connection; calls under way fail with `ConnectionLost`."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def is_overloaded(self) -> bool:
        """Whether as many starts are under way as the host can take, 1,024 at most.

        Another one would be held back, or refused without being sent, as `retry_overloaded`
        says. Whoever serves others can turn them away before doing anything for them.
        """
        return self._session.is_overloaded

    # -- one instance ---------------------------------------------------------------------------

    @overload
    def handle(
        self, instance_id: str, orchestrator: WithoutInput[R] | WithInput[Any, R]
    ) -> OrchestrationHandle[R]: ...
    @overload
    def handle(self, instance_id: str, orchestrator: str = "") -> OrchestrationHandle[Any]: ...
    def handle(self, instance_id: str, orchestrator: Orchestrator = "") -> OrchestrationHandle[Any]:
        """Return a handle of an instance that was started elsewhere; asks nobody.

        Args:
            instance_id: of the instance, which need not exist.
            orchestrator: its function, if `result()` shall decode to the annotated type.
        """
        codec = result_codec_of(orchestrator)
        return OrchestrationHandle(self, check_instance_id(instance_id), codec)

    async def get(self, instance_id: str, *, history: bool = False) -> OrchestrationStatus | None:
        """Return how an instance stands, with its history if wanted; None: there is none."""
        snapshot: Any = await self._managed(instance_id, requests.Get())
        if snapshot is None:
            return None
        events = await self.history(instance_id) if history else None
        return status_of(self._opened(snapshot), events)

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """Return the history of the current execution.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        encoded: Any = await self.call(instance_id, requests.GetHistory())
        if encoded is None:
            raise InstanceNotFound(f"no instance {instance_id!r}")
        return history_of(encoded, self._sealer)

    async def export(self, instance_id: str) -> bytes:
        """Return an instance with its history as JSON, for `shardrt.testing.replay`.

        Payloads are in it as they are stored: sealed, if the app has a payload codec.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        exported: Any = await self.call(instance_id, requests.Export())
        if exported is None:
            raise InstanceNotFound(f"no instance {instance_id!r}")
        return bytes(exported)

    async def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Deliver an external event; it is kept until the instance takes it.

        Raises:
            InstanceNotFound: there is no such instance.
            InstanceFinished: it has ended.
        """
        payload = encode_payload(data, "event data", self._payload_bytes_max(), self._sealer)
        await self._managed(instance_id, requests.Raise(name, payload, current_trace()))

    async def explain(self, instance_id: str) -> Explanation:
        """Return why an instance does not move: everything that it waits for.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        return await explain(self, instance_id)

    async def terminate(
        self, instance_id: str, reason: str = "", *, recursive: bool = True
    ) -> None:
        """End an instance from outside, with its children if `recursive`."""
        await self._managed(instance_id, requests.Terminate(reason, recursive))

    async def cancel(self, instance_id: str, reason: str = "") -> None:
        """Cancel an instance: its body sees `asyncio.CancelledError`, and may clean up first.

        It ends as Canceled when that leaves the body, at once if its code has not begun. Only
        the first request of an execution counts.

        Raises:
            InstanceNotFound: there is no such instance.
            InstanceFinished: it has ended.
            InputInvalid: it is an entity.
        """
        await self._managed(instance_id, requests.Cancel(reason))

    async def suspend(self, instance_id: str, reason: str = "") -> None:
        """Pause an instance; what arrives meanwhile is kept."""
        await self.call(instance_id, requests.Suspend(reason))

    async def resume(self, instance_id: str, reason: str = "") -> None:
        """Let a suspended instance go on; try the code of a parked one again, at once."""
        await self.call(instance_id, requests.Resume(reason))

    async def rewind(self, instance_id: str, reason: str = "") -> None:
        """Run again what failed in a failed instance; what succeeded is kept."""
        await self.call(instance_id, requests.Rewind(reason))

    async def restart(self, instance_id: str) -> OrchestrationHandle:
        """Start an instance that has ended anew, with its name and input."""
        await self.call(instance_id, requests.Restart(current_trace()))
        return OrchestrationHandle(self, instance_id)

    async def purge(self, instance_id: str, *, force: bool = False) -> int:
        """Delete an instance that has ended, and its history; return how many were deleted.

        Args:
            instance_id: the instance.
            force: delete it also if it is quarantined because what is stored of it cannot be
                read. Its parent, if it has one, goes on waiting for it.

        Raises:
            InstanceNotFinished: it is still open.
            InstanceQuarantined: it cannot be read, and `force` is not set.
        """
        purged: Any = await self._managed(instance_id, requests.Purge(force))
        return int(purged.count)

    async def wait_for_end(self, instance_id: str) -> Snapshot:
        """Wait until an instance has ended, however it ends."""
        return self._opened(await self._session.wait(check_instance_id(instance_id)))

    # -- many instances -------------------------------------------------------------------------

    async def limits(self, name: str | None = None) -> list[LimitStatus]:
        """Return the limits that are in use, or those of one name, each key apart."""
        return [each async for each in all_limits(self, name)]

    async def list(  # noqa: PLR0913 - one per condition
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
    ) -> AsyncIterator[OrchestrationStatus]:
        """Iterate over instances, oldest first; conditions are joined by AND.

        The answer comes from the read model, which lags behind by a checkpoint interval (a
        second). Ranges are half-open: `created_from` is included, `created_to` is not. Of
        `tags`, an instance must have all.
        """
        where = filter_of(
            status=status,
            name=name,
            id_prefix=id_prefix,
            created_from=created_from,
            created_to=created_to,
            completed_from=completed_from,
            completed_to=completed_to,
            tags=tags,
        )
        async for page in SnapshotPages(self._session, where, page_size):
            for snapshot in page:
                yield status_of(self._opened(snapshot))

    async def count(self, **conditions: Any) -> dict[str, int]:
        """Return how many instances there are per status, under the conditions of `list`."""
        question = CountInstances(filter_of(**conditions))
        counts: dict[str, int] = msgspec.json.decode(await self.ask(question))
        return counts

    async def purge_where(
        self,
        *,
        status: Status | str | Sequence[Status | str] | None = None,
        completed_to: datetime | None = None,
        progress: Callable[[int], None] | None = None,
        **conditions: Any,
    ) -> int:
        """Delete instances that have ended and fulfil the conditions; return how many.

        Args:
            status: which ends; default: all four.
            completed_to: only those that ended before.
            progress: called after each batch, with how many were deleted so far.
            **conditions: further ones, as for `list`.
        """
        where = filter_of(status=status or sorted(FINAL), completed_to=completed_to, **conditions)
        return await purge_where(self, where, progress)

    async def cluster(self) -> dict[str, Any]:
        """Return what the host knows of hosts, shards and partitions."""
        view: dict[str, Any] = msgspec.json.decode(await self.ask(Cluster()))
        return view

    # -- for layers above -----------------------------------------------------------------------

    async def call(self, instance_id: str, request: Request) -> requests.Result | None:
        """Send a request to the owner of an instance and return its decoded result."""
        return await self._session.call(check_instance_id(instance_id), request)

    async def _managed(self, instance_id: str, request: Request) -> requests.Result | None:
        """Do the same, within a span of its own if the caller is in one."""
        if not current_trace():
            return await self.call(instance_id, request)
        # By name: it needs a package that is optional.
        managing: Any = import_module("shardrt.tracing.managing")
        called: Awaitable[requests.Result | None] = managing.call_within_span(
            self, instance_id, request, self._tracer
        )
        return await called

    async def ask(self, question: Question) -> Raw:
        """Ask about the hub or host; return the answer's JSON."""
        return await self._session.ask(question)

    def _opened(self, snapshot: Snapshot) -> Snapshot:
        return snapshot if self._sealer is None else self._sealer.open_fields(snapshot)

    def _payload_bytes_max(self) -> int:
        welcome = self._session.welcome
        return PAYLOAD_BYTES_MAX if welcome is None else welcome.payload_bytes_max
