"""Code that ends its shard process again and again: it is not run any more, others go on.

The verdict on an instance is durable: it is suspended, with the reason, and `resume` runs it
again. So is that on an activity: the attempt has failed, and its retry policy decides. An
instance that does not exist yet, because the very turn that would have been committed ended the
process, is suspended as soon as it is created; an entity is parked as long as this lasts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shardrt.core.effects import RunActivity
from shardrt.core.history import Failure
from shardrt.links.control import DEATHS_MAX, Blamed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shardrt.core.partition import Partition
    from shardrt.host.attempts import Key

logger = logging.getLogger(__name__)


def condemned(blamed: Iterable[Blamed]) -> list[Blamed]:
    """Return what is not to be run any more."""
    return [each for each in blamed if each.deaths >= DEATHS_MAX]


def suspected(blamed: Iterable[Blamed]) -> set[Key]:
    """Return the activities that may be to blame, and may not."""
    return {
        (each.instance_id, each.execution_id, each.task_id)
        for each in blamed
        if each.task_id is not None
    }


def condemn(core: Partition, blamed: Sequence[Blamed], now: int, draw: float) -> dict[str, str]:
    """Carry out the verdicts on a partition that was just recovered, before it is taken.

    Whatever they concern is in memory, if it exists. Return what is still to be kept from
    running: instance or entity, and why.
    """
    later: dict[str, str] = {}
    for each in condemned(blamed):
        if each.task_id is not None:
            _fail(core, each, now, draw)
            continue
        reason = f"quarantined: its code was running in {each.deaths} deaths of shard processes"
        logger.error(
            "partition=%d instance=%s is %s", core.state.partition, each.instance_id, reason
        )
        if each.instance_id in core.instances:
            core.condemn(each.instance_id, reason, now)
        else:
            later[each.instance_id] = reason
    return later


def _fail(core: Partition, blamed: Blamed, now: int, draw: float) -> None:
    instance = core.instances.get(blamed.instance_id)
    task_id = blamed.task_id
    if instance is None or task_id is None or instance.execution_id != blamed.execution_id:
        return
    pending = instance.pending.get(task_id)
    if pending is None or pending.retry_at is not None:
        return
    run = RunActivity(
        blamed.instance_id,
        blamed.execution_id,
        task_id,
        pending.attempt,
        pending.name,
        pending.input,
    )
    message = f"it was running in {blamed.deaths} deaths of shard processes"
    logger.error(
        "partition=%d instance=%s activity=%s task=%d has failed: %s",
        core.state.partition,
        blamed.instance_id,
        pending.name,
        task_id,
        message,
    )
    core.activity_ended(run, Failure(type="ShardDied", message=message), now, draw)
