"""What surrounds a measurement."""

import gc
from collections.abc import Iterator

import pytest

from shardrt.bench.measuring import collecting_seldom
from shardrt.bench.postgres_stats import split_schema
from shardrt.bench.stores import store

THRESHOLDS = 700, 10, 10


@pytest.fixture
def _fresh_collector() -> Iterator[None]:
    """The collector as Python starts it, whatever the tests have made of it."""
    before = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.freeze()


@pytest.mark.usefixtures("_fresh_collector")
def test_the_collector_is_as_before_after_a_measurement():
    with collecting_seldom():
        assert gc.get_threshold() > THRESHOLDS
        assert gc.get_freeze_count() > 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (THRESHOLDS, 0)


def test_stores_of_a_given_server_do_not_share_a_schema(pg_dsn: str) -> None:
    with store(pg_dsn) as one, store(pg_dsn) as other:
        assert split_schema(one)[1] != split_schema(other)[1]
