"""The part of the client that concerns entities."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.client.starting import encode_payload
from shardrt.client.views import to_datetime, to_micros
from shardrt.core import requests
from shardrt.core.entity import entity_id
from shardrt.errors import EntityFailed, InputInvalid, InstanceNotFinished
from shardrt.links.admin import EntityPage, ListEntities
from shardrt.orchestration.entity_id import (
    EntityId,
    EntityRef,
    OperationRef,
    as_entity_id,
    operation_name,
    result_codec_of_operation,
)
from shardrt.orchestration.payload import ANY, Codec, codec_for
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime, timedelta

    from shardrt.client.filters import Asks
    from shardrt.client.session import Session
    from shardrt.core.requests import EntitySnapshot
    from shardrt.orchestration.sealing import Sealer

PURGE_WINDOW = 256

_decode_page = msgspec.json.Decoder(EntityPage).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityStatus:
    """The committed state of an entity."""

    entity_id: str
    name: str
    key: str
    exists: bool
    """Whether it has a state; one without is of use to its queue and its lock only."""
    state: Any
    created_at: datetime
    updated_at: datetime
    partition: int
    locked_by: str | None = None
    """The instance whose critical section has it."""
    backlog: int = 0
    """Operations and lock requests that wait."""
    reason: str = ""
    """Why it cannot go on."""

    @property
    def is_empty(self) -> bool:
        """Whether it can be purged."""
        return not (self.exists or self.locked_by or self.backlog)


def entity_status_of(snapshot: EntitySnapshot, codec: Codec[Any] = ANY) -> EntityStatus:
    """Return a snapshot as users see it."""
    found = snapshot.exists
    what = f"state of {snapshot.instance_id}"
    return EntityStatus(
        entity_id=snapshot.instance_id,
        name=snapshot.name,
        key=snapshot.key,
        exists=found,
        state=codec.decode(snapshot.state, what) if found else None,
        created_at=to_datetime(snapshot.created_at),
        updated_at=to_datetime(snapshot.updated_at),
        partition=snapshot.partition,
        locked_by=snapshot.locked_by,
        backlog=snapshot.backlog,
        reason=snapshot.reason,
    )


def entity_filter(name: str | None, key_prefix: str) -> Filter:
    """Return the conditions in the words of the store."""
    if name is None:
        if key_prefix:
            raise InputInvalid("give a name with a prefix of the key")
        return Filter(entities=True)
    return Filter(entities=True, name=name.lower(), id_prefix=entity_id(name, key_prefix))


async def entity_page(asked: Asks, where: Filter, limit: int, token: str | None) -> EntityPage:
    """Return one page of entities."""
    return _decode_page(await asked.ask(ListEntities(where, limit, token)))


class EntityClient:
    """The methods of `Client` that concern entities."""

    _session: Session
    _sealer: Sealer | None
    _payload_bytes_max: Callable[[], int]

    async def signal_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        at: datetime | timedelta | None = None,
    ) -> None:
        """Have an entity do something; when this returns, that is durable, but need not be done.

        Args:
            entity: its id, ``@name@key`` or an `EntityId`. It need not exist.
            operation: the name, or the method of the class.
            input: of the operation.
            at: not before this time, or this long from now. Naive times are UTC.

        Raises:
            EntityNotRegistered: the host knows no entity of that name.
        """
        name = operation_name(operation)
        payload = encode_payload(input, "input", self._payload_bytes_max(), self._sealer)
        fire_at = None if at is None else to_micros(at)
        request = requests.SignalEntity(name, payload, fire_at)
        await self._session.call(as_entity_id(entity), request)

    async def call_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        result_type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the plain way to say it
    ) -> Any:
        """Have an entity do something, and return its result once it is done.

        Args:
            entity: its id, ``@name@key`` or an `EntityId`. It need not exist.
            operation: the name, or the method of the class.
            input: of the operation.
            result_type: of the result; default: what the method is annotated with.
            timeout: seconds; it ends the waiting, not the operation. Default: that of all calls.

        Raises:
            EntityFailed: the operation raised.
            EntityNotRegistered: the host knows no entity of that name.
            AnswerForgotten: it was done, but its answer was lost.
            TimeoutError: it was not done in time.
        """
        name = operation_name(operation)
        payload = encode_payload(input, "input", self._payload_bytes_max(), self._sealer)
        request = requests.CallEntity(name, payload)
        instance_id = as_entity_id(entity)
        if timeout is None:
            reply: Any = await self._session.call(instance_id, request)
        else:
            async with asyncio.timeout(timeout):
                reply = await self._session.call(instance_id, request, timeout + 1)
        if reply.failure is not None:
            raise EntityFailed(reply.failure, f"{instance_id} {name}: ")
        codec = result_codec_of_operation(operation, result_type)
        return codec.decode(self._unsealed(reply).result, f"result of {instance_id} {name}")

    async def get_entity(self, entity: EntityRef, *, state_type: Any = None) -> EntityStatus | None:
        """Return an entity with its committed state; None if it has no state.

        Args:
            entity: its id, ``@name@key`` or an `EntityId`.
            state_type: what to make of the state, such as the class; default: plain JSON.
        """
        found: Any = await self._session.call(as_entity_id(entity), requests.GetEntity())
        if found is None or not found.exists:
            return None
        return entity_status_of(
            self._unsealed(found), ANY if state_type is None else codec_for(state_type)
        )

    async def list_entities(
        self,
        name: str | Callable[..., Any] | None = None,
        *,
        key_prefix: str = "",
        include_empty: bool = False,
        page_size: int = 100,
    ) -> AsyncIterator[EntityStatus]:
        """Iterate over entities, oldest first, from the read model (see `list`).

        Args:
            name: of the entity, or its class or function; default: all.
            key_prefix: only keys that begin with this.
            include_empty: also those without a state.
            page_size: how many to ask for at a time.
        """
        if name is not None and not isinstance(name, str):
            name = EntityId(name, "").name
        where = entity_filter(name, key_prefix)
        token = None
        while True:
            page = await entity_page(self._session, where, page_size, token)
            for snapshot in page.entities:
                if snapshot.exists or include_empty:
                    yield entity_status_of(self._unsealed(snapshot))
            token = page.token
            if token is None:
                return

    async def purge_entities(self, name: str | Callable[..., Any] | None = None) -> int:
        """Forget entities that have no state, no lock and nothing to do; return how many."""
        empty = [
            each.entity_id
            async for each in self.list_entities(name, include_empty=True, page_size=PURGE_WINDOW)
            if each.is_empty
        ]
        purged = 0
        for instance_id in empty:
            try:
                answer: Any = await self._session.call(instance_id, requests.Purge())
                purged += answer.count
            except InstanceNotFinished:
                continue  # the read model lags: it has work again
        return purged

    def _unsealed(self, answer: Any) -> Any:
        return answer if self._sealer is None else self._sealer.open_fields(answer)
