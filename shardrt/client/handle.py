"""A handle: one instance, as the one who started or looks for it holds it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, overload

from shardrt.client.explaining import not_ended
from shardrt.core.history import Failure, Status
from shardrt.errors import (
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
)
from shardrt.orchestration.payload import ANY, Codec, codec_for

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from typing_extensions import TypeVar  # with defaults; at run time they do not matter

    from shardrt.client.client import Client
    from shardrt.client.views import HistoryEvent, OrchestrationStatus
    from shardrt.core.requests import Snapshot

    R = TypeVar("R", default=Any)
    T = TypeVar("T")
else:
    from typing import TypeVar

    R = TypeVar("R")


class OrchestrationHandle(Generic[R]):
    """One instance, whose output is an `R`. Made by `Client.start` and `Client.handle`."""

    __slots__ = ("_client", "_codec", "instance_id")

    def __init__(self, client: Client, instance_id: str, codec: Codec[Any] = ANY) -> None:
        self.instance_id = instance_id
        self._client = client
        self._codec = codec

    def __repr__(self) -> str:
        return f"OrchestrationHandle({self.instance_id!r})"

    @overload
    async def result(self, timeout: float | None = None, type: None = None) -> R: ...  # noqa: ASYNC109
    @overload
    async def result(self, timeout: float | None = None, *, type: type[T]) -> T: ...  # noqa: ASYNC109
    @overload
    async def result(self, timeout: float | None = None, *, type: Any) -> Any: ...  # noqa: ASYNC109
    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the plain way to say it to a handle
        type: Any = None,  # noqa: A002 - as the public interface calls it
    ) -> Any:
        """Wait until the instance has ended; return its output. Pushed, not polled.

        Args:
            timeout: seconds; it ends the waiting, not the instance.
            type: of the output; default: what the started function is annotated with.

        Raises:
            OrchestrationFailed: with the failure's type, message and details.
            OrchestrationTerminated: with the reason.
            OrchestrationCanceled: with the reason.
            InstanceNotFound: there is no such instance (any more).
            TimeoutError: it has not ended in time; says what it waits for.
        """
        codec = self._codec if type is None else codec_for(type)
        end = self._client.wait_for_end(self.instance_id)
        if timeout is not None:
            end = within(timeout, end, self._client, self.instance_id)
        return output_of(await end, codec)

    async def status(self, *, history: bool = False) -> OrchestrationStatus | None:
        """Return how it stands; None if it does not exist (any more)."""
        return await self._client.get(self.instance_id, history=history)

    async def history(self) -> list[HistoryEvent]:
        return await self._client.history(self.instance_id)

    async def raise_event(self, name: str, data: Any = None) -> None:
        await self._client.raise_event(self.instance_id, name, data)

    async def terminate(self, reason: str = "", *, recursive: bool = True) -> None:
        await self._client.terminate(self.instance_id, reason, recursive=recursive)

    async def cancel(self, reason: str = "") -> None:
        await self._client.cancel(self.instance_id, reason)

    async def suspend(self, reason: str = "") -> None:
        await self._client.suspend(self.instance_id, reason)

    async def resume(self, reason: str = "") -> None:
        await self._client.resume(self.instance_id, reason)

    async def rewind(self, reason: str = "") -> None:
        await self._client.rewind(self.instance_id, reason)

    async def restart(self) -> OrchestrationHandle[R]:
        await self._client.restart(self.instance_id)
        return self

    async def purge(self) -> int:
        return await self._client.purge(self.instance_id)


async def within(
    seconds: float, end: Awaitable[Snapshot], client: Client, instance_id: str
) -> Snapshot:
    """Return what there is at the end of an instance; say what it waits for if that is late."""
    try:
        async with asyncio.timeout(seconds):
            return await end
    except TimeoutError:
        raise TimeoutError(await not_ended(client, instance_id, seconds)) from None


def output_of(snapshot: Snapshot, codec: Codec[Any]) -> Any:
    """Return the output of an instance that has ended, or raise how it ended."""
    if snapshot.status is Status.COMPLETED:
        return codec.decode(snapshot.output, f"output of {snapshot.instance_id}")
    if snapshot.status is Status.FAILED:
        failure = snapshot.failure or Failure(type="Unknown", message=snapshot.reason)
        raise OrchestrationFailed(failure)
    if snapshot.status is Status.CANCELED:
        raise OrchestrationCanceled(snapshot.reason)
    raise OrchestrationTerminated(snapshot.reason)
