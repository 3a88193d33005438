"""Questions about the hub rather than one instance; any shard can answer them from the store."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from shardrt.core.limiter import Numbers
from shardrt.core.requests import EntitySnapshot, Snapshot
from shardrt.store.base import Filter


class _Question(msgspec.Struct, frozen=True, array_like=True):
    pass


class ListInstances(_Question, frozen=True, tag="list"):
    """One page of snapshots, from the read model (at most a checkpoint interval behind)."""

    where: Filter
    limit: int = 100
    token: str | None = None


class CountInstances(_Question, frozen=True, tag="count"):
    """How many instances per status; answer is a JSON object."""

    where: Filter


class ListEntities(_Question, frozen=True, tag="entities"):
    """One page of entities, from the read model likewise; of `where`, times, name and id count."""

    where: Filter
    limit: int = 100
    token: str | None = None


class ListLimits(_Question, frozen=True, tag="limits"):
    """One page of limiters, from the read model likewise; of `where`, only the id counts."""

    where: Filter
    limit: int = 100
    token: str | None = None


class Cluster(_Question, frozen=True, tag="cluster"):
    """Hosts, shards, partitions, lags; answered by the gateway through its supervisor."""


class Metrics(_Question, frozen=True, tag="metrics"):
    """What this host has counted and measured (`links.metrics.Samples`); answered likewise."""


class HostHealth(_Question, frozen=True, tag="health"):
    """How this host stands (`host.health.Report`); answered likewise."""


HostQuestion: TypeAlias = Cluster | Metrics | HostHealth
"""What concerns a host rather than what is stored."""
Question: TypeAlias = ListInstances | CountInstances | ListEntities | ListLimits | HostQuestion


class SnapshotPage(msgspec.Struct, frozen=True):
    """Answer to `ListInstances`."""

    instances: tuple[Snapshot, ...]
    token: str | None = None


class EntityPage(msgspec.Struct, frozen=True):
    """Answer to `ListEntities`."""

    entities: tuple[EntitySnapshot, ...]
    token: str | None = None


class LimitSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter as its row has it. Times are microseconds since 1970 UTC."""

    limiter_id: str
    partition: int
    numbers: Numbers = Numbers()
    holders: int = 0
    waiting: int = 0
    waiting_since: int | None = None
    """Since when the first in line waits."""
    next_at: int | None = None
    """When the rate lets the next one through, if somebody waits for that."""
    reason: str = ""
    """Why it is quarantined."""


class LimitPage(msgspec.Struct, frozen=True):
    """Answer to `ListLimits`."""

    limits: tuple[LimitSnapshot, ...]
    token: str | None = None
