"""At which version the schema of a store is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.store.named_queries import load_migrations

if TYPE_CHECKING:
    from shardrt.store.base import Store


async def schema_of(store: Store) -> tuple[int, int]:
    """Return the version of its schema, and the newest that this release knows.

    Raises:
        StoreUnavailable: there is no hub in it, or it cannot be read.
    """
    from shardrt.store.postgres.store import PostgresStore  # noqa: PLC0415 - see store.factory
    from shardrt.store.sqlite.store import SqliteStore  # noqa: PLC0415

    assert isinstance(store, PostgresStore | SqliteStore), "others have no schema"
    package = type(store).__module__.rpartition(".")[0]
    return await store.schema(), max(load_migrations(package, "schema"))
