"""The store of a run: given, or a throw-away server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from shardrt.bench.postgres_stats import drop_schema, split_schema
from shardrt.testing.postgres import PostgresServer, with_parameters


@contextmanager
def store(given: str | None) -> Iterator[str]:
    """Yield a store URL.

    Without one, a Postgres with fsync on is started for the run. On a given Postgres the run
    has a schema of its own, dropped afterwards, unless the URL names one.
    """
    if given is None:
        with PostgresServer() as server:
            yield server.dsn
    elif given.startswith("postgres") and split_schema(given)[1] is None:
        url = with_parameters(given, schema=f"bench_{os.getpid()}")
        try:
            yield url
        finally:
            drop_schema(url)
    else:
        yield given
