"""Options and fixtures that all tests share.

--seed N      run tests that take `seed` with this seed (and --runs - 1 more after it)
--runs N      how many seeds such a test runs
--chaos-seconds N  for how long the chaos tests kill processes of one host
--cluster-seconds N  and those of several hosts, all together
--rewrite     write the expected answers of scenario files anew, failing once

`pg_dsn` is a server for the session, `hub_dsn` an empty hub of its own for each test. Users
of either get the `pg` mark by themselves.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.postgres import fresh_schema, server_dsn

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

RUNS_DEFAULT = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("shardrt")
    group.addoption("--seed", type=int, help="first seed of seeded tests")
    group.addoption("--runs", type=int, help="how many seeds each seeded test runs")
    group.addoption("--chaos-seconds", type=float, default=100.0, help="how long chaos tests kill")
    group.addoption("--cluster-seconds", type=float, default=200.0, help="and with several hosts")
    group.addoption("--rewrite", action="store_true", help="write scenario answers anew")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", seeds(metafunc))


def seeds(metafunc: pytest.Metafunc) -> range:
    """Return the seeds for one test: the options win over its `runs` mark."""
    first: int | None = metafunc.config.getoption("--seed")
    runs: int | None = metafunc.config.getoption("--runs")
    if runs is None:
        marker = metafunc.definition.get_closest_marker("runs")
        by_default = marker.args[0] if marker else RUNS_DEFAULT
        runs = by_default if first is None else 1
    return range(first or 0, (first or 0) + runs)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is collected out of garbage collections, which took a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"pg_dsn", "hub_dsn"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("pg")


@pytest.fixture(scope="session")
def pg_dsn() -> Iterator[str]:
    """DSN of a PostgreSQL server that lives as long as the test session."""
    with server_dsn() as dsn:
        yield dsn


@pytest.fixture
def hub_dsn(pg_dsn: str) -> Iterator[str]:
    """Store URL of an empty hub: a schema of its own on the session's server."""
    with fresh_schema(pg_dsn) as dsn:
        yield dsn


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether scenario files shall be written anew."""
    return bool(request.config.getoption("--rewrite"))
