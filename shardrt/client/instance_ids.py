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

import os
from os import urandom
from threading import Lock
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
STRIDE = 0x9E3779B1
"""From one group's checksum to that of the next; odd, so that all partitions have their turn, and
2^32 divided by the golden ratio, so that successive ones are far from each other."""
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
        self._lock = Lock()
        self._checksum = int.from_bytes(self._random(4), "big")
        self._made = 0
        self._of_late = 0.0
        self._last_ns = 0
        self._left = 0

    def new(self) -> str:
        """Return a new id."""
        now_ns = self._now_ns()
        random = self._random(2)
        with self._lock:
            checksum = self._next_checksum(now_ns)
            self._made = made = (self._made + 1) & 0xFFF
        # The time, the version and a counter that tells those of a group apart, the variant.
        head = f"{now_ns // 1_000_000:012x}7{made:03x}{0x80 | random[0] & 0x3F:02x}{random[1]:02x}"
        return head + digits_for(head, checksum)

    def _next_checksum(self, now_ns: int) -> int:
        passed = min(1.0, max(0, now_ns - self._last_ns) / WINDOW_NS)
        self._last_ns = now_ns
        self._of_late = self._of_late * (1.0 - passed) + 1.0
        if self._left:
            self._left -= 1
        else:
            self._left = min(GROUP_MAX, max(1, int(self._of_late / SHARE))) - 1
            self._checksum = (self._checksum + STRIDE) & 0xFFFFFFFF
        return self._checksum


def digits_for(head: str, checksum: int) -> str:
    """Return the digits with which a text of this beginning has that CRC-32."""
    wrong = crc32((head + _FREE).encode()) ^ checksum
    bits = 0
    for table in _TABLES:
        bits ^= table[wrong & 0xFF]
        wrong >>= 8
    return f"{bits:012o}"


def _bits_for_each() -> list[int]:
    """Return for each bit of a checksum the bits of the digits that flip it and no other.

    By elimination, as a system of linear equations is solved.
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
    return [digits for _, digits in found]


def _tables() -> list[list[int]]:
    """Return for each byte of a checksum, by its value, the bits of the digits that flip it."""
    each = _bits_for_each()
    tables = []
    for byte in range(4):
        table = [0]
        for bit in each[8 * byte : 8 * byte + 8]:
            table += [bits ^ bit for bits in table]
        tables.append(table)
    return tables


_TABLES = _tables()
_IDS = InstanceIds()
os.register_at_fork(after_in_child=_IDS.begin_anew)
new_instance_id = _IDS.new
