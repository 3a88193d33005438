from __future__ import annotations

import os
import uuid
from collections import Counter
from itertools import groupby
from threading import Thread
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from shardrt.client.instance_ids import GROUP_MAX, SHARE, InstanceIds, digits_for, new_instance_id
from shardrt.core.ids import partition_of

MANY = 2_000
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        return self.ns


def zeros(count: int) -> bytes:
    return bytes(count)


def made(count: int, each_ns: int) -> list[str]:
    """Return ids of which one was made so often."""
    clock = Clock()
    ids = InstanceIds(clock)
    found = []
    for _ in range(count):
        clock.ns += each_ns
        found.append(ids.new())
    return found


def groups(ids: list[str]) -> list[int]:
    """Return how many there are of each checksum, one after the other."""
    return [len(list(each)) for _, each in groupby(ids, lambda each: crc32(each.encode()))]


@given(st.text("0123456789abcdef", min_size=20, max_size=20), st.integers(0, 2**32 - 1))
def test_the_last_digits_make_any_checksum(head: str, checksum: int):
    text = head + digits_for(head, checksum)
    assert len(text) == 32
    assert crc32(text.encode()) == checksum


def test_ids_made_later_sort_later():
    ids = made(MANY, MS)
    assert ids == sorted(ids)


@pytest.mark.parametrize("each_ns", [0, 1_000, MS, 1_000 * MS])
def test_they_are_uuids_of_their_time_and_differ(each_ns: int):
    ids = made(MANY, each_ns)
    assert len(set(ids)) == MANY
    for number, each in enumerate(ids, 1):
        assert uuid.UUID(each).hex == each
        assert uuid.UUID(each).version == 7
        assert uuid.UUID(each).variant == uuid.RFC_4122
        assert int(each[:12], 16) == (START_NS + number * each_ns) // MS


def test_those_of_a_group_differ_without_luck():
    ids = InstanceIds(Clock(), zeros)
    assert len({ids.new() for _ in range(MANY)}) == MANY


def test_who_starts_few_at_a_time_has_them_all_apart():
    assert groups(made(MANY, 10 * MS)) == [1] * MANY


@pytest.mark.parametrize("partitions", [1, 7, 8, 32, 256])
def test_who_starts_many_has_groups_each_in_one_partition_and_all_partitions_in_turn(
    partitions: int,
):
    ids = made(40 * MANY, MS // 10)
    of_late = 500  # in the window; those before its beginning count less and less
    sizes = groups(ids)[1_000:-1]
    assert of_late // SHARE * 0.8 <= min(sizes) <= max(sizes) <= GROUP_MAX
    placed = Counter(partition_of(each, partitions) for each in ids)
    assert len(placed) == partitions
    mean = len(ids) / partitions
    assert max(placed.values()) - mean <= 0.1 * mean + GROUP_MAX


def test_a_burst_is_spread():
    """However many come at once, no partition gets more than a small share of them."""
    for count in (8, 32, 100, 1_000):
        placed = Counter(partition_of(each, 256) for each in made(count, 0))
        assert max(placed.values()) <= max(1, min(GROUP_MAX, count // SHARE))


def test_successive_groups_are_not_neighbours():
    """Whether a shard has every other partition or one half of them, others have their turn."""
    placed = [partition_of(each, 32) for each in made(200, 100 * MS)]
    for belongs in (lambda p: p % 2, lambda p: p < 16):
        runs = [len(list(each)) for _, each in groupby(placed, belongs)]
        assert max(runs) <= 2


def test_a_clock_that_is_set_back_does_no_harm():
    clock = Clock()
    ids = InstanceIds(clock)
    before = [ids.new() for _ in range(MANY)]
    clock.ns -= 3_600_000 * MS
    after = [ids.new() for _ in range(MANY)]
    assert len({*before, *after}) == 2 * MANY


def test_threads_share_them():
    found: list[str] = []

    def run() -> None:
        found.extend([new_instance_id() for _ in range(MANY)])

    threads = [Thread(target=run) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(found)) == 4 * MANY


def test_a_forked_process_begins_anew():
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, new_instance_id().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    theirs = os.read(reading, 32).decode()
    assert crc32(theirs.encode()) != crc32(new_instance_id().encode())
