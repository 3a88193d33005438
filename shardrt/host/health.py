"""How a host stands: a verdict for probes and load balancers, and the facts that it rests on.

Pure: made of what is known anyway. A probe never asks the store; that it can be reached is
known from the renewals of the lease, three of which are sent per TTL.
"""

from __future__ import annotations

import platform
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt import __version__
from shardrt.cluster.alarms import GRACE_S
from shardrt.config.advice import warnings
from shardrt.host.child import BEAT_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shardrt.config import Settings

SILENT_S = 4 * BEAT_INTERVAL_S
"""Children beat twice a second: one that has not for so long is in trouble."""
SILENT_S_MAX = 10 * BEAT_INTERVAL_S
"""What it serves stands still by now."""
LAG_S_MAX = 1.0
"""A loop that is this late holds up everything else that its process does."""
COMMIT_S = 2.0
"""A commit takes milliseconds."""
COMMIT_S_MAX = 5.0
CHECKPOINT_S_MAX = 30.0
"""A checkpoint takes as long as the store needs for a few megabytes."""


class Status(StrEnum):
    """How it goes, the better ones first."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    """It works, but somebody should look."""
    UNHEALTHY = "Unhealthy"


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    """``store``, ``lease``, ``reach``, ``processes``, ``partitions``, ``checkpoints``, ``code``,
    ``configuration``; or what a gateway knows itself, ``routes`` and ``host``."""
    status: Status
    message: str = ""


class ChildHealth(msgspec.Struct, frozen=True, rename="camel"):
    """A process of the host; durations in seconds."""

    name: str
    role: str
    status: Status
    pid: int | None
    uptime_s: float
    restarts: int
    silent_s: float | None
    """Since its last beat."""
    lag_s: float | None
    """How late its loop was, the last time that it looked."""
    partitions: list[int]
    commit_wait_s: float
    """How long the commit that is under way has been."""
    checkpoint_wait_s: float
    """Likewise, of the oldest checkpoint: so old are the changes that only the journal has."""
    journal_unsaved_bytes: float


class PartitionHealth(msgspec.Struct, frozen=True, rename="camel"):
    """A partition that this host owns."""

    partition: int
    epoch: int
    phase: str | None
    commit_lag: int
    """Records that are applied and not durable yet."""
    checkpoint_lag: int
    """Records that are durable and in no checkpoint yet."""
    trouble: str | None
    unserved_s: float | None
    quarantined: int


class StoreHealth(msgspec.Struct, frozen=True, rename="camel"):
    """What the lease tells of the store; durations in seconds."""

    lease: str
    renewed_s: float | None
    """Since the last renewal."""
    ping_s: float | None
    """What that took."""


class Report(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a host stands."""

    status: Status
    is_ready: bool
    """Whether requests should be sent there."""
    host_id: str
    checks: list[Check]
    store: StoreHealth | None = None
    processes: list[ChildHealth] = []
    partitions: list[PartitionHealth] = []
    versions: dict[str, str] = {}


def report_of(view: Mapping[str, Any], settings: Settings) -> Report:
    """Return how the host stands that sees the hub like this (`supervisor.view.cluster_view`)."""
    children = [_child(each) for each in view.get("children", [])]
    host_id = view.get("host_id", settings.host.host_id)
    partitions = [_partition(row) for row in view.get("partitions", []) if row["owner"] == host_id]
    checks = [
        _store(view, children),
        _lease(view),
        _reach(view),
        _processes(children),
        _partitions(view.get("partitions", []), settings.host.lease_ttl_s + GRACE_S),
        _checkpoints(children),
        _code(view),
        _configuration(settings),
    ]
    shards = [each for each in children if each.role == "shard"]
    vital = checks[:3]
    return Report(
        status=worst(check.status for check in checks),
        is_ready=all(check.status is not Status.UNHEALTHY for check in vital)
        # One that is down or frozen holds back its own partitions, from everybody: no other
        # host could reach them either, and those of its neighbours only from here.
        and any(each.status is not Status.UNHEALTHY for each in shards),
        host_id=host_id,
        checks=checks,
        store=StoreHealth(view.get("lease", "joining"), view.get("renewed_s"), view.get("ping_s")),
        processes=children,
        partitions=partitions,
        versions={"shardrt": __version__, "python": platform.python_version()},
    )


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of them; healthy, if there is none."""
    return max(statuses, key=list(Status).index, default=Status.HEALTHY)


def _child(facts: Mapping[str, Any]) -> ChildHealth:
    counters = facts["counters"]
    silent_s, lag_s = facts.get("silent_s"), facts.get("lag_s")
    status = Status.HEALTHY
    if not facts["ready"] or (silent_s or 0.0) >= SILENT_S or (lag_s or 0.0) >= LAG_S_MAX:
        status = Status.DEGRADED
    if facts["pid"] is None or (silent_s or 0.0) >= SILENT_S_MAX:
        status = Status.UNHEALTHY
    return ChildHealth(
        name=facts["name"],
        role=facts["role"],
        status=status,
        pid=facts["pid"],
        uptime_s=facts["uptime_s"],
        restarts=facts["restarts"],
        silent_s=silent_s,
        lag_s=lag_s,
        partitions=facts["partitions"],
        commit_wait_s=counters.get("commit_wait_s", 0.0),
        checkpoint_wait_s=counters.get("checkpoint_wait_s", 0.0),
        journal_unsaved_bytes=counters.get("journal_unsaved_bytes", 0.0),
    )


def _partition(row: Mapping[str, Any]) -> PartitionHealth:
    committed = row["commit_lsn"]
    return PartitionHealth(
        partition=row["partition"],
        epoch=row["epoch"],
        phase=row["phase"],
        commit_lag=max(0, row.get("applied_lsn", committed) - committed),
        checkpoint_lag=max(0, committed - row["checkpoint_lsn"]),
        trouble=row["trouble"],
        unserved_s=row["unserved_s"],
        quarantined=len(row.get("quarantined", [])),
    )


def _store(view: Mapping[str, Any], children: list[ChildHealth]) -> Check:
    if problem := view.get("problem"):
        return Check("store", Status.UNHEALTHY, f"the lease cannot be renewed: {problem}")
    waited_s = max((each.commit_wait_s for each in children), default=0.0)
    if waited_s >= COMMIT_S:
        status = Status.UNHEALTHY if waited_s >= COMMIT_S_MAX else Status.DEGRADED
        return Check("store", status, f"a commit has been under way for {waited_s:.1f} s")
    return Check("store", Status.HEALTHY)


def _lease(view: Mapping[str, Any]) -> Check:
    lease = view.get("lease", "joining")
    good = lease in {"held", "doubtful"}
    return Check("lease", Status.HEALTHY if good else Status.UNHEALTHY, f"it is {lease}")


def _reach(view: Mapping[str, Any]) -> Check:
    problem = view.get("unreachable", "")
    return Check("reach", Status.UNHEALTHY if problem else Status.HEALTHY, problem)


def _processes(children: list[ChildHealth]) -> Check:
    bad = [each for each in children if each.status is not Status.HEALTHY]
    status = worst(each.status for each in bad)
    if not any(each.role == "shard" for each in children):
        status = Status.UNHEALTHY
    return Check("processes", status, "; ".join(_trouble_of(each) for each in bad))


def _trouble_of(child: ChildHealth) -> str:
    if child.pid is None:
        return f"{child.name} is down"
    if (child.silent_s or 0.0) >= SILENT_S:
        return f"{child.name} has been silent for {child.silent_s:.1f} s"
    if (child.lag_s or 0.0) >= LAG_S_MAX:
        return f"the loop of {child.name} was {child.lag_s:.1f} s late"
    return f"{child.name} is starting or ending"


def _partitions(rows: list[Mapping[str, Any]], unserved_s_max: float) -> Check:
    bad = [
        row["partition"]
        for row in rows
        if row["trouble"] or (row["unserved_s"] or 0.0) > unserved_s_max
    ]
    if not bad:
        return Check("partitions", Status.HEALTHY)
    return Check("partitions", Status.DEGRADED, f"not served: {', '.join(map(str, bad))}")


def _checkpoints(children: list[ChildHealth]) -> Check:
    waited_s = max((each.checkpoint_wait_s for each in children), default=0.0)
    if waited_s < CHECKPOINT_S_MAX:
        return Check("checkpoints", Status.HEALTHY)
    text = f"one has been under way for {waited_s:.0f} s"
    return Check("checkpoints", Status.DEGRADED, text)


def _code(view: Mapping[str, Any]) -> Check:
    condemned = view.get("quarantined_orchestrators", [])
    if not condemned:
        return Check("code", Status.HEALTHY)
    names = ", ".join(
        each["name"] if each["version"] is None else f"{each['name']} {each['version']}"
        for each in condemned
    )
    return Check("code", Status.DEGRADED, f"not run, as it ended shard processes: {names}")


def _configuration(settings: Settings) -> Check:
    # Where values came from is not known here: secrets in files are `shardrt config check`'s.
    found = warnings(settings, {})
    status = Status.DEGRADED if found else Status.HEALTHY
    return Check("configuration", status, "; ".join(found))
