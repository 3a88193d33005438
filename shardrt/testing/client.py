"""A client of a `testing.hub.Hub`: asks again, as the same request, until it is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw

from shardrt.core import requests as r
from shardrt.core.codec import decode_history
from shardrt.core.history import NULL
from shardrt.core.ids import partition_of
from shardrt.links.messages import Forward

if TYPE_CHECKING:
    from shardrt.core.history import HistoryEvent
    from shardrt.links.messages import Answer
    from shardrt.testing.hub import Hub

PATIENCE_S = 1.0
"""Silence after which a request is made again."""
AGAIN = frozenset({"PartitionUnavailable", "Overloaded", "StoreUnavailable"})
_READS = (r.Get, r.GetHistory, r.Export, r.GetSlot, r.Explain, r.Wait)


class Refused(Exception):
    """The answer was no."""

    def __init__(self, refusal: r.Refusal) -> None:
        self.code = refusal.code
        super().__init__(f"{refusal.code}: {refusal.message}")


class Acknowledged(NamedTuple):
    """A request that was answered with yes."""

    instance_id: str
    request: r.Request
    attempts: int


class HubClient:
    """One session of a client."""

    def __init__(self, hub: Hub, name: str = "client") -> None:
        self.name = name
        self.acknowledged: list[Acknowledged] = []
        self.attempts = 0
        self._hub = hub
        self._seq = 0
        self._links = 0
        self._open: set[int] = set()

    async def call(self, instance_id: str, request: r.Request) -> Raw:
        """Make a request until it is answered. Raises `Refused`."""
        self._seq += 1
        seq, attempts = self._seq, 0
        if not isinstance(request, _READS):
            self._open.add(seq)
        try:
            while True:
                attempts += 1
                origin = r.Origin(self.name, seq, min(self._open, default=seq))
                answer = await self._attempt(instance_id, request, origin)
                if answer is not None and answer.refusal is None:
                    self._hub.note(f"{type(request).__name__} of {instance_id} acknowledged")
                    self.acknowledged.append(Acknowledged(instance_id, request, attempts))
                    return answer.result
                if answer is not None and answer.refusal is not None:
                    if answer.refusal.code not in AGAIN:
                        raise Refused(answer.refusal)
                    await asyncio.sleep(answer.refusal.retry_after_s or 0.1)
                if isinstance(request, r.Start) and request.fresh:
                    request = msgspec.structs.replace(request, fresh=False)
        finally:
            self._open.discard(seq)

    async def _attempt(
        self, instance_id: str, request: r.Request, origin: r.Origin
    ) -> Answer | None:
        self.attempts += 1
        self._links += 1
        partition = partition_of(instance_id, self._hub.partitions)
        owner = self._hub.owners.get(partition)
        if owner is None or not owner.is_alive:
            await asyncio.sleep(0.1)
            return None
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def take(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        owner.submit(Forward(self._links, partition, origin, instance_id, request), take)
        done, _ = await asyncio.wait([answered], timeout=PATIENCE_S)
        return answered.result() if done else None

    # -- requests --------------------------------------------------------------------------------

    async def start(
        self,
        name: str,
        input: object = None,  # noqa: A002
        instance_id: str | None = None,
        **options: Any,
    ) -> str:
        """Start an instance and return its id."""
        payload = Raw(msgspec.json.encode(input))
        fresh = instance_id is None
        chosen = f"{self.name}-{self._seq + 1}" if instance_id is None else instance_id
        await self.call(chosen, r.Start(name, payload, fresh=fresh, **options))
        return chosen

    async def raise_event(self, instance_id: str, name: str, data: object = None) -> None:
        await self.call(instance_id, r.Raise(name, Raw(msgspec.json.encode(data))))

    async def terminate(self, instance_id: str, reason: str = "") -> None:
        await self.call(instance_id, r.Terminate(reason))

    async def cancel(self, instance_id: str, reason: str = "") -> None:
        await self.call(instance_id, r.Cancel(reason))

    async def purge(self, instance_id: str) -> int:
        result = await self.call(instance_id, r.Purge())
        return msgspec.json.decode(result, type=r.Purged).count

    async def get(self, instance_id: str) -> r.Snapshot | None:
        return _decode(await self.call(instance_id, r.Get()))

    async def history(self, instance_id: str) -> list[HistoryEvent] | None:
        result = await self.call(instance_id, r.GetHistory())
        return None if result == NULL else decode_history(bytes(result))

    async def wait(self, instance_id: str) -> r.Snapshot:
        """Return the instance when it has ended."""
        snapshot = _decode(await self.call(instance_id, r.Wait()))
        assert snapshot is not None
        return snapshot

    async def result(self, instance_id: str) -> Any:
        """Return the output of an instance that completes."""
        snapshot = await self.wait(instance_id)
        assert snapshot.failure is None, snapshot.failure
        assert snapshot.status == "Completed", snapshot.status
        return msgspec.json.decode(snapshot.output)


def _decode(result: Raw) -> r.Snapshot | None:
    return None if result == NULL else msgspec.json.decode(result, type=r.Snapshot)
