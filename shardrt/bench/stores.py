"""The store of a run: given, or a throw-away server."""

import itertools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg

from shardrt.bench.errors import RunFailed
from shardrt.bench.postgres_stats import drop_schema, split_schema
from shardrt.testing.postgres import PostgresServer, with_parameters
from shardrt.testing.postgres_binaries import PostgresUnavailable

_numbers = itertools.count(1)


def throwaway() -> PostgresServer:
    """Return a started server.

    Raises:
        RunFailed: there are no programs to start.
    """
    server = PostgresServer()
    try:
        return server.start()
    except PostgresUnavailable as error:
        server.close()
        raise RunFailed(f"{error}; or give --store") from error


@contextmanager
def store(given: str | None) -> Iterator[str]:
    """Yield a store URL.

    Without one, a Postgres with fsync on is started for the run. On a given Postgres the run
    has a schema of its own, dropped afterwards, unless the URL names one: each of several in one
    program another.
    """
    if given is None:
        with closing(throwaway()) as server:
            yield server.dsn
    elif given.startswith("postgres") and split_schema(given)[1] is None:
        url = with_parameters(given, schema=f"bench_{os.getpid()}_{next(_numbers)}")
        try:
            yield url
        finally:
            # If the server is gone, the run has said so.
            with suppress(psycopg.OperationalError):
                drop_schema(url)
    else:
        yield given
