from __future__ import annotations

import subprocess
import sys
import uuid
from collections import Counter
from itertools import groupby
from threading import Thread
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from shardrt.client.instance_ids import GROUP_MAX, SHARE, InstanceIds, digits_for, new_instance_id
from shardrt.cluster.placement import place
from shardrt.core.ids import partition_of
from shardrt.supervisor.policy import choose_shard

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def of(partitions: int, *joining: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return host and shard of each partition, after hosts of so many shards have joined."""
    owners: list[str | None] = [None] * partitions
    for hosts in joining:
        owners = place(hosts, owners)
    shards: list[tuple[str, int]] = []
    loads = {host: dict.fromkeys(range(count), 0) for host, count in joining[-1].items()}
    for number, host in enumerate(owners):
        assert host is not None
        shard = choose_shard(number, loads[host])
        loads[host][shard] += 1
        shards.append((host, shard))
    return shards


def made(count: int, each_ns: int) -> list[str]:
    """Return ids, each made so long after the one before."""
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


@pytest.mark.parametrize("partitions", [8, 12, 16, 24, 32, 48, 64, 100, 128, 240, 256])
@pytest.mark.parametrize(
    "joining",
    [
        [{"a": 2}],
        [{"a": 4}],
        [{"a": 1}, {"a": 1, "b": 1}],
        [{"a": 2}, {"a": 2, "b": 2}],
        [{"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}],
    ],
)
def test_few_shards_are_idle_while_so_many_groups_are_under_way(
    partitions: int, joining: list[dict[str, int]]
):
    shards = of(partitions, *joining)
    placed = [shards[partition_of(each, partitions)] for each in made(400, 100 * MS)]
    windows = [set(placed[first : first + SHARE]) for first in range(len(placed) - SHARE)]
    busy = sum(map(len, windows)) / len(windows)
    assert busy >= 0.9 * len(set(shards))


def test_a_group_ends_with_its_burst():
    clock = Clock()
    ids = InstanceIds(clock)
    for _ in range(MANY):
        ids.new()
    after = []
    for _ in range(GROUP_MAX):
        clock.ns += 1_000 * MS
        after.append(ids.new())
    assert groups(after) == [1] * GROUP_MAX


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


FORKING = """
import os
from shardrt.client.instance_ids import new_instance_id
new_instance_id()
child = os.fork()
os.write(1, new_instance_id().encode() + b"\\n")  # in one piece: two write to this pipe
if child:
    os.waitpid(child, 0)
"""


def test_a_forked_process_begins_anew():
    told = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True
    )
    ids = told.stdout.split()
    assert len(ids) == 2, told
    assert len({crc32(each.encode()) for each in ids}) == 2


def test_any_of_sixteen_ends_makes_the_checksum():
    ends = {digits_for("0" * 20, 1, choice) for choice in range(16)}
    assert len(ends) == 16
    assert {crc32(("0" * 20 + each).encode()) for each in ends} == {1}
