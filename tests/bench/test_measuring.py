"""What surrounds a measurement."""

import gc

from shardrt.bench.measuring import collecting_seldom


def test_the_collector_is_as_before_after_a_measurement():
    before = gc.get_threshold(), gc.get_freeze_count()
    with collecting_seldom():
        assert gc.get_threshold() > before[0]
        assert gc.get_freeze_count() > before[1]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
