"""An empty hub on each store."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from shardrt import Runtime
from tests.entities.bank import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STORES = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.pg)]

_names = itertools.count(1)


@pytest.fixture(params=STORES)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Runtime]:
    """Makes runtimes of one hub, one after the other."""
    urls = {
        "memory": lambda: f"memory://entities-{next(_names)}",
        "sqlite": lambda: f"sqlite:///{tmp_path / 'hub.db'}",
        "postgres": lambda: str(request.getfixturevalue("hub_dsn")),
    }
    url = urls[request.param]()
    settings = {"store.unsafe": True, "shard.checkpoint_interval_s": 0.1}
    return lambda: Runtime(app, store=url, partitions=4, settings=settings)
