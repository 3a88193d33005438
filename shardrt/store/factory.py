"""From a store URL to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from shardrt.store.base import Store


def make_store(url: str, *, connections: int = 2, unsafe: bool = False) -> Store:
    """Return the unopened store that a URL names.

    ``memory://[name]`` (one per process and name), ``sqlite:///relative.db``,
    ``sqlite:////absolute.db``, ``postgresql://user:password@host/database?schema=shardrt``.

    Args:
        url: as above.
        connections: at most this many connections at a time.
        unsafe: accept a Postgres whose settings can lose acknowledged data.

    Raises:
        ConfigInvalid: unknown scheme, or a part of the URL makes no sense.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        from shardrt.store.memory import MemoryStore  # noqa: PLC0415

        return MemoryStore.named(url)
    if scheme == "sqlite":
        from shardrt.store.sqlite.store import SqliteStore  # noqa: PLC0415

        return SqliteStore(url)
    if scheme in {"postgresql", "postgres"}:
        from shardrt.store.postgres.store import PostgresStore  # noqa: PLC0415

        return PostgresStore(url, connections=connections, unsafe=unsafe)
    raise ConfigInvalid(
        f"store.url: unknown scheme {scheme[:20]!r}; use memory://, sqlite:///file.db or postgresql://…"
    )
