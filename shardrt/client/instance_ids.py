"""Ids for instances whose starters give none.

Such an id is a UUID of version 7 (RFC 9562), as 32 hex digits: what is made later sorts later. So
instances of about the same time share pages of indexes in the database. In random places, each
start would change pages of its own, and beside many instances they are seldom the same.

Those of about the same time share partitions, too. A partition's journal gets one record per
commit, whatever that holds, and each record has its price; with starts spread evenly over
hundreds of partitions every record would hold next to nothing. So ids are made in groups with the
same CRC-32, by which `partition_of` places them, however many partitions there are. A group
is a small share of what was started of late: who starts few at a time has them all apart.

A checksum is chosen by its last digits. CRC-32 is linear over GF(2): with texts of one length,
flipping certain bits flips the same bits of the checksum whatever the text is. The digits 0 to 7
differ in three bits that are free, so a dozen of them reach all 32 bits of it.
"""

from __future__ import annotations

from os import getpid, urandom
from threading import RLock
from time import time_ns  # bound before orchestrators are guarded against clocks: it is faster
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_NS = 50_000_000
"""Starts count as of late for so long; about what an instance of short steps takes."""
SHARE = 8
"""A group is one in so many of them, so that there is enough for every shard at any time."""
GROUP_MAX = 64
"""What tells those of a group apart has six bits."""
STRIDE = 0xFE3BFADB
"""From one group's checksum to that of the next. Odd, so that all partitions have their turn; found
by a search for few idle shards, whatever the number of partitions and the hosts that share them."""
_FREE = "0" * 12
"""The digits that are computed."""


class InstanceIds:
    """Makes ids; for use by any thread.

    Args:
        now_ns: nanoseconds since 1970.
        random: so many random bytes.
    """

    def __init__(
        self, now_ns: Callable[[], int] = time_ns, random: Callable[[int], bytes] = urandom
    ) -> None:
        self._now_ns = now_ns
        self._random = random
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have nothing in common with what was made so far, as in a process that was forked."""
        self._pid = getpid()
        self._lock = RLock()
        self._checksum = int.from_bytes(self._random(4), "big")
        self._of_late = 0.0
        self._last_ns = 0
        self._number = 0
        """Of the last one within its group."""
        self._size = 0
        """Of the group."""

    def new(self) -> str:
        """Return a new id."""
        if getpid() != self._pid:
            self.begin_anew()
        now_ns = self._now_ns()
        random = int.from_bytes(self._random(3), "big")
        with self._lock:
            self._count(now_ns)
            number, checksum = self._number, self._checksum
        # The time, the version, the number in the group, the variant; the rest is random.
        middle = number << 6 | random >> 18
        last = 0x8000 | random >> 4 & 0x3FFF
        head = f"{now_ns // 1_000_000:012x}7{middle:03x}{last:04x}"
        return head + digits_for(head, checksum, random & 0xF)

    def _count(self, now_ns: int) -> None:
        passed = min(1.0, max(0, now_ns - self._last_ns) / WINDOW_NS)
        self._last_ns = now_ns
        self._of_late = of_late = self._of_late * (1.0 - passed) + 1.0
        self._number += 1
        if self._number >= min(self._size, of_late / SHARE):  # a group ends with its burst
            self._number = 0
            self._size = min(GROUP_MAX, int(of_late / SHARE))
            self._checksum = (self._checksum + STRIDE) & 0xFFFFFFFF


def digits_for(head: str, checksum: int, choice: int = 0) -> str:
    """Return the digits with which a text of this beginning has that CRC-32.

    There are sixteen such ends, of which `choice` says which.
    """
    wrong = crc32((head + _FREE).encode()) ^ checksum
    bits = _ENDS[choice]
    for table in _TABLES:
        bits ^= table[wrong & 0xFF]
        wrong >>= 8
    return f"{bits:012o}"


def _solved() -> tuple[list[int], list[int]]:
    """Find out what flips single bits of a checksum.

    By elimination, as a system of linear equations is solved.

    Returns:
        For each bit of a checksum the bits of the digits that flip it and no other; and those,
        independent of each other, that flip none.
    """
    zero = crc32(_FREE.encode())
    # What they flip in the checksum, and the bits of the digits.
    left = [(crc32(f"{1 << bit:012o}".encode()) ^ zero, 1 << bit) for bit in range(36)]
    found: list[tuple[int, int]] = []
    for bit in range(32):
        pivot = next(each for each in left if each[0] >> bit & 1)
        left.remove(pivot)
        left, found = (
            [(a ^ pivot[0], b ^ pivot[1]) if a >> bit & 1 else (a, b) for a, b in each]
            for each in (left, found)
        )
        found.append(pivot)
    return [digits for _, digits in found], [digits for _, digits in left]


def _sums(vectors: list[int]) -> list[int]:
    """Return the sums (by exclusive or) of all subsets, by the bits of their numbers."""
    sums = [0]
    for each in vectors:
        sums += [sum_ ^ each for sum_ in sums]
    return sums


_EACH, _NONE = _solved()
_TABLES = [_sums(_EACH[bit : bit + 8]) for bit in range(0, 32, 8)]
"""For each byte of a checksum, by its value, the bits of the digits that flip it."""
_ENDS = _sums(_NONE)
new_instance_id = InstanceIds().new
