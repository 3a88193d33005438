"""Ids: where an instance lives, and the names of what follows from another.

All of it is a pure function of its arguments and stable for ever: a changed hash would place
instances on partitions that do not know them.
"""

from __future__ import annotations

import hashlib
import re
import zlib

_PLACED = re.compile(r"!([0-9]{1,6})\Z")


def partition_of(instance_id: str, partitions: int) -> int:
    """Return the partition of an instance.

    An id that ends in ``!n`` asks for partition ``n % partitions``; all others are spread by
    CRC-32 of their UTF-8 bytes.
    """
    if "!" in instance_id and (placed := _PLACED.search(instance_id)):
        return int(placed[1]) % partitions
    return zlib.crc32(instance_id.encode()) % partitions


def derived_id(*parts: str | int) -> str:
    """Return 32 hex digits that depend on all parts: the id of what follows from them."""
    text = "\x00".join(map(str, parts))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
