"""Where an instance lives, and the names of what follows from another."""

from __future__ import annotations

from collections import Counter

import pytest

from shardrt.core.ids import derived_id, partition_of


@pytest.mark.parametrize(
    ("instance_id", "partition"),
    [("a", 3), ("order-17", 20), ("größe", 9), ("", 0), ("a!5", 5), ("a!37", 5), ("a!000033", 1)],
)
def test_the_partition_of_an_id_never_changes(instance_id: str, partition: int):
    assert partition_of(instance_id, 32) == partition


@pytest.mark.parametrize("instance_id", ["a!", "!5x", "a!5\n", "a!٣", "a!1234567", "a!-1"])
def test_only_a_number_at_the_end_asks_for_a_partition(instance_id: str):
    # Each of these would be on partition 3 or 5 if it did.
    assert partition_of(instance_id, 2**40) > 10**6


def test_ids_are_spread_evenly():
    counts = Counter(partition_of(f"order-{n}", 8) for n in range(8000))
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_a_derived_id_never_changes():
    assert derived_id("ann", 1, "a") == "0a9a5e50672ac733028a42970d9f9615"


def test_a_derived_id_depends_on_every_part_and_its_place():
    parts = [("a", "b"), ("ab",), ("b", "a"), ("a", "b", ""), ("a",), ("a", 1), ("a1",), ("a", 11)]
    assert len({derived_id(*each) for each in parts}) == len(parts)
