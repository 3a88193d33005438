"""The part of the blocking client that concerns entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from datetime import datetime, timedelta

    from shardrt.client.client import Client
    from shardrt.client.entities import EntityStatus
    from shardrt.orchestration.entity_id import EntityRef, OperationRef


class SyncEntities:
    """The methods of `SyncClient` that concern entities."""

    _client: Client

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the async client on its loop, and wait for it."""
        raise NotImplementedError

    def signal_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        at: datetime | timedelta | None = None,
    ) -> None:
        """Have an entity do something, and do not wait for it; see `Client.signal_entity`."""
        self.run(self._client.signal_entity(entity, operation, input, at=at))

    def call_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        **options: Any,
    ) -> Any:
        """Have an entity do something, and return its result; see `Client.call_entity`."""
        return self.run(self._client.call_entity(entity, operation, input, **options))

    def get_entity(self, entity: EntityRef, *, state_type: Any = None) -> EntityStatus | None:
        """Return an entity with its state; None: it has none."""
        found: EntityStatus | None = self.run(
            self._client.get_entity(entity, state_type=state_type)
        )
        return found

    def list_entities(self, name: Any = None, **conditions: Any) -> Iterator[EntityStatus]:
        """Iterate over entities; see `Client.list_entities`."""
        entities = self._client.list_entities(name, **conditions)
        while (one := self.run(_next(entities))) is not None:
            yield one

    def purge_entities(self, name: Any = None) -> int:
        """Forget entities without a state; see `Client.purge_entities`."""
        return int(self.run(self._client.purge_entities(name)))


async def _next(entities: AsyncIterator[EntityStatus]) -> EntityStatus | None:
    return await anext(entities, None)
