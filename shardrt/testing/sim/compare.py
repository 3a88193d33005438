"""Whether two copies of an instance are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardrt.core.state import Instance

WHOLE = ("epoch", "lanes", "received", "sessions")
"""The parts of a partition's state that are in memory as a whole."""
OF_CHECKPOINTS = frozenset({"tail", "stale_history"})
"""Fields of an instance that checkpoints change."""


def instance_differences(instance: Instance, copy: Instance) -> Iterator[str]:
    """Compare two instances, and as much of their history as both remember."""
    for field in instance.__struct_fields__:
        if field not in OF_CHECKPOINTS:
            left, right = getattr(instance, field), getattr(copy, field)
            if left != right:
                yield f"{field}: {left} != {right}"
    shared = min(len(instance.tail), len(copy.tail))
    if shared and instance.tail[-shared:] != copy.tail[-shared:]:
        yield f"history: {instance.tail} != {copy.tail}"
