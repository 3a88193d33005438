"""Code that ends its shard process again and again: it is not run any more, others go on.

The verdict on an instance is durable: it is suspended, with the reason, and `resume` runs it
again. So is that on an activity: the attempt has failed, and its retry policy decides. An
instance that does not exist yet, because the very turn that would have been committed ended the
process, is suspended as soon as it is created; an entity is parked as long as this lasts.

An orchestrator whose instances did that, one after the other, is condemned as such: they are parked
as those whose code does not fit. That verdict lives in the supervisor. It ends with it, or when
somebody resumes one of them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shardrt.core.effects import RunActivity
from shardrt.core.history import Failure
from shardrt.host.black_box import Orchestrator
from shardrt.links.control import DEATHS_MAX, Blamed, Condemned

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shardrt.core.partition import Partition
    from shardrt.host.attempts import Key
    from shardrt.host.partition_host import PartitionHost
    from shardrt.host.shard import Shard

logger = logging.getLogger(__name__)

DEADLY = "quarantined: shard processes died in the code of other instances of its orchestrator"
"""Why those are parked that have done nothing yet."""


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


def pardon(host: PartitionHost, instance_id: str) -> None:
    """Let the code of an instance run again, as somebody asks for; also that of all like it."""
    host.forbidden.pop(instance_id, None)
    turns = host.shard.turns
    instance = host.core.instances.get(instance_id)
    if turns.condemned and instance is not None:
        orchestrator = Orchestrator(instance.name, instance.version)
        if orchestrator in turns.condemned:
            turns.on_pardon(orchestrator)


def forbid(shard: Shard, orchestrators: Iterable[Condemned]) -> None:
    """Run no instances of these orchestrators, and of all others those that were held back."""
    before = shard.turns.condemned
    shard.turns.condemned = {Orchestrator(each.name, each.version) for each in orchestrators}
    if before - shard.turns.condemned:
        for host in shard.hosts.values():
            host.core.retry_parked(DEADLY)
            shard.wake(host)


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
