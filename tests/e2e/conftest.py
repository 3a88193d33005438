"""A directory and an empty hub for each host that a test starts, on both durable stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serving import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNSAFE = {"SHARDRT_STORE_UNSAFE": "true"}
"""The tests' server runs without fsync."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.pg)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty hub."""
    if request.param == "postgres":
        return str(request.getfixturevalue("hub_dsn"))
    return f"sqlite:///{tmp_path / 'hub.db'}"


@pytest.fixture
def host(store_url: str, tmp_path: Path) -> Iterator[Served]:
    """A host that serves the samples with two shards; not started yet."""
    served = Served(store_url, tmp_path, "--shards", "2", variables=UNSAFE)
    try:
        yield served
    finally:
        served.close()
