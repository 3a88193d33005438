"""Who should own what. Every host computes it alone, from the same view, with the same result.

Each host is due a share of the partitions in proportion to its shards, rounded down or up. A
host keeps what it has, up to its share; only the surplus and the ownerless move. Which host's
share is rounded up is decided in favour of those that have the extra partition already: that
makes the number of moves the smallest possible, and a finished placement a fixed point.

Pure: no clock, no I/O. A host that is about to leave is simply not among the hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def place(shares: Mapping[str, int], owners: Sequence[str | None]) -> list[str | None]:
    """Return the desired owner of each partition.

    Args:
        shares: hosts that can own partitions, each with its weight (shards, at least 1).
        owners: present owner of each partition; one that is not in `shares` counts as none.

    Returns:
        As long as `owners`; all None if there is no host.
    """
    if not shares:
        return [None] * len(owners)
    owned = {host: [p for p, owner in enumerate(owners) if owner == host] for host in shares}
    quotas = _quotas(shares, {host: len(kept) for host, kept in owned.items()}, len(owners))
    desired: list[str | None] = [None] * len(owners)
    for host, partitions in owned.items():
        for partition in partitions[: quotas[host]]:
            desired[partition] = host
    spare = {host: quotas[host] - min(quotas[host], len(owned[host])) for host in sorted(shares)}
    for partition, owner in enumerate(desired):
        if owner is None:
            # The emptiest first; on a tie the first by name, as `spare` is sorted.
            host = max(spare, key=spare.__getitem__)
            desired[partition] = host
            spare[host] -= 1
    return desired


def _quotas(shares: Mapping[str, int], owned: Mapping[str, int], partitions: int) -> dict[str, int]:
    total = sum(shares.values())
    quotas = {host: partitions * weight // total for host, weight in shares.items()}
    remainders = {host: partitions * weight % total for host, weight in shares.items()}

    def claim_to_round_up(host: str) -> tuple[bool, int, str]:
        return (owned[host] <= quotas[host], -remainders[host], host)

    candidates = sorted((host for host in shares if remainders[host]), key=claim_to_round_up)
    for host in candidates[: partitions - sum(quotas.values())]:
        quotas[host] += 1
    return quotas
