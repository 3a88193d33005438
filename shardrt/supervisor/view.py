"""The host's view of the cluster, as JSON-able facts, for people and dashboards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.links.metrics import Sample, Samples, add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.cluster.membership import Membership
    from shardrt.supervisor.blame import Blames
    from shardrt.supervisor.shards import Shards
    from shardrt.supervisor.slot import Slot


def cluster_view(
    membership: Membership | None,
    shards: Shards,
    slots: Sequence[Slot],
    blames: Blames,
    now_s: float,
) -> dict[str, Any]:
    """Return hosts, partitions with their lags, the children of this host, and what it won't run.

    `now_s` is monotonic.
    """
    facts: dict[str, Any] = {} if membership is None else membership.describe()
    progress = {
        partition: lsns
        for slot in slots
        if slot.child is not None
        for partition, lsns in slot.child.beat.progress.items()
    }
    quarantined = {
        partition: instances
        for slot in slots
        if slot.child is not None
        for partition, instances in slot.child.beat.quarantined.items()
    }
    for row in facts.get("partitions", []):
        if (lsns := progress.get(row["partition"])) is not None:
            row["applied_lsn"], row["commit_lsn"], row["checkpoint_lsn"] = lsns
        if instances := quarantined.get(row["partition"]):
            row["quarantined"] = instances
    facts["children"] = [_child(slot, shards, now_s) for slot in slots]
    facts["quarantined_orchestrators"] = [
        msgspec.structs.asdict(each) for each in blames.condemned.values()
    ]
    return facts


def _child(slot: Slot, shards: Shards, now_s: float) -> dict[str, Any]:
    child = slot.child
    return {
        "name": slot.name,
        "role": slot.role,
        "index": slot.index,
        "pid": None if child is None else child.pid,
        "ready": slot.serves,
        "uptime_s": round(slot.uptime_s, 3),
        "restarts": slot.restarts.total,
        "silent_s": None if child is None else round(now_s - child.heard_s, 3),
        "lag_s": None if child is None else child.beat.lag_s,
        "partitions": shards.hosted_by(slot) if slot.role == "shard" else [],
        "counters": {} if child is None else child.beat.counters,
        "running": [] if child is None else child.beat.running,
    }


def samples_of(
    membership: Membership | None, slots: Sequence[Slot], blames: Blames, now_s: float
) -> Samples:
    """Return what all children of this host have counted and measured, added up.

    `now_s` is monotonic.
    """
    samples = add_up(slot.child.beat.samples for slot in slots if slot.child is not None)
    served = 0 if membership is None else len(membership.serving())
    samples["lease_active_count"] = [((), Sample(served))]
    samples["orchestrators_quarantined"] = [((), Sample(len(blames.condemned)))]
    samples["shardrt_child_silent_seconds"] = [
        ((slot.name,), Sample(round(now_s - slot.child.heard_s, 3)))
        for slot in slots
        if slot.child is not None
    ]
    samples["shardrt_child_restarts"] = [
        ((slot.name,), Sample(slot.restarts.total)) for slot in slots
    ]
    return samples
