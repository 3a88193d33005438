"""Whether somebody looks on at the partitions of a shard. If nobody does, it costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from shardrt.core.partition import Partition

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.state import PartitionState
    from shardrt.host.activity_pool import ActivityPool
    from shardrt.host.observed import Watch
    from shardrt.tracing.tracer import Tracer


def observing(
    tracer: Tracer | None,
    now: Callable[[], int],
    facts: dict[str, str | int],
    pool: ActivityPool,
) -> Callable[[PartitionState], Partition]:
    """Return what makes the partitions of a shard; see `observed` for what looks on, and how.

    Args:
        tracer: takes the spans; None: nobody looks on.
        now: hub time in µs.
        facts: about the shard, for each span.
        pool: where the shard's activities run.
    """
    if tracer is None:
        return Partition
    # By name: it needs a package that is optional.
    watch_type: type[Watch] = import_module("shardrt.host.observed").Watch
    watch = watch_type(tracer, now, facts)
    pool.around, pool.outside = watch.around, tracer.outside
    return watch.partition
