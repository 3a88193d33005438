"""Where the partitions of other hosts are, judging by a view of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.cluster.identity import owner_name
from shardrt.links.peer import target_of

if TYPE_CHECKING:
    from shardrt.store.base import View


def live_targets(view: View) -> dict[str, str]:
    """Return the target of each host that can be reached, by the owner that it is."""
    targets = {}
    for host in view.hosts:
        if host.expires_at > view.now and host.address:
            owner = owner_name(host.host_id, host.incarnation)
            targets[owner] = target_of(host.address, owner)
    return targets


def routes_to_hosts(view: View, me: str) -> list[str | None]:
    """Return the target of each partition's owner; None for those of nobody, and ours."""
    targets = live_targets(view)
    targets.pop(me, None)
    return [targets.get(row.owner or "") for row in view.partitions]
