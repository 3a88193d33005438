"""What this host holds, and what to do next about it.

`Holdings` is told what happens (a claim succeeded, a shard opened, died, gave up) and `plan`
says what follows from that and from the latest view of the hub. Both are pure; `membership`
does the talking. A view may be older than what we did since: epochs only grow, so whatever
carries the lower epoch is the stale side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeAlias

from shardrt.cluster.identity import owner_name
from shardrt.cluster.placement import place

if TYPE_CHECKING:
    from shardrt.config import HostSettings
    from shardrt.store.base import Ownership, View

HANDOVER_S = 10.0
"""What the last checkpoints and releases may take, once activities have had their grace."""


class Phase(StrEnum):
    """Where a partition that this host holds stands."""

    OPENING = "opening"
    """Claimed and assigned to a shard, which recovers it."""
    SERVING = "serving"
    MOVING = "moving"
    """Being drained by its shard, to go to another shard of this host."""
    REVOKING = "revoking"
    """Being drained by its shard, to be given up."""
    ABANDONED = "abandoned"
    """Its shard was told to forget it, and has not said that it has."""
    GIVING = "giving up"
    """No shard has it any more; to be released in the store."""
    RECLAIMING = "reclaiming"
    """No shard has it any more; to be claimed again, so that nothing old can write."""
    BROKEN = "broken"
    """Its shard could not host it; to be claimed again after a pause."""


class Happening(StrEnum):
    """What can happen to it."""

    CLAIMED = "claimed"
    OPENED = "opened"
    MOVE = "move"
    REVOKE = "revoke"
    ABANDON = "abandon"
    RELEASED = "released"
    BROKE = "broke"
    SHARD_DIED = "shard died"


_P, _H = Phase, Happening

# What is not listed cannot matter (any more) and is ignored: shards answer late.
TRANSITIONS: dict[Phase, dict[Happening, Phase]] = {
    _P.OPENING: {
        _H.OPENED: _P.SERVING,
        _H.REVOKE: _P.REVOKING,
        _H.MOVE: _P.MOVING,
        _H.BROKE: _P.BROKEN,
        _H.SHARD_DIED: _P.RECLAIMING,
    },
    _P.SERVING: {
        _H.REVOKE: _P.REVOKING,
        _H.MOVE: _P.MOVING,
        _H.BROKE: _P.BROKEN,
        _H.SHARD_DIED: _P.RECLAIMING,
        _H.RELEASED: _P.RECLAIMING,  # a shard gave it up by itself: it is ending
    },
    _P.MOVING: {
        _H.REVOKE: _P.REVOKING,
        _H.ABANDON: _P.ABANDONED,
        _H.RELEASED: _P.RECLAIMING,
        _H.BROKE: _P.BROKEN,
        _H.SHARD_DIED: _P.RECLAIMING,
    },
    _P.REVOKING: {
        _H.ABANDON: _P.ABANDONED,
        _H.RELEASED: _P.GIVING,
        _H.BROKE: _P.GIVING,
        _H.SHARD_DIED: _P.GIVING,
    },
    # Not before the shard has forgotten it, or is dead: it could still answer from memory.
    _P.ABANDONED: {
        _H.RELEASED: _P.GIVING,
        _H.BROKE: _P.GIVING,
        _H.SHARD_DIED: _P.GIVING,
    },
    _P.GIVING: {},
    _P.RECLAIMING: {_H.CLAIMED: _P.OPENING, _H.REVOKE: _P.GIVING},
    _P.BROKEN: {_H.CLAIMED: _P.OPENING, _H.REVOKE: _P.GIVING},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The lease's duration, how much may be in motion, and how long one waits for what."""

    ttl_s: float = 10.0
    """How long a silent host keeps its partitions."""

    opening_max: int = 16
    """Partitions that recover at a time. More recovers sooner when idle, and slows down
    everybody who serves."""
    handovers_max: int = 4
    """Partitions drained for other hosts at a time."""
    revoke_s_max: float = 60.0
    """A shard that has not drained a partition by then loses it as it is."""
    retry_s_min: float = 0.5
    retry_s_max: float = 60.0
    healthy_s: float = 60.0
    """A partition that served this long is no longer counted as troublesome."""

    @classmethod
    def of(cls, host: HostSettings) -> Self:
        """Return what a host's settings ask for."""
        revoke_s_max = host.drain_s + HANDOVER_S + host.lease_ttl_s
        return cls(ttl_s=host.lease_ttl_s, revoke_s_max=revoke_s_max)


@dataclass(slots=True, kw_only=True)
class Holding:
    """One partition of ours."""

    epoch: int
    phase: Phase
    since_s: float


@dataclass(slots=True)
class Trouble:
    """What went wrong with a partition of late; outlives the holding."""

    count: int = 0
    since_s: float = 0.0
    retry_at_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim the partition, if its epoch is still this."""

    partition: int
    seen_epoch: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Have the shard drain the partition."""

    partition: int


@dataclass(frozen=True, slots=True)
class Release:
    """Release the partition in the store."""

    partition: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Have the shard forget the partition at once: somebody else has it."""

    partition: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Have the shard forget the partition, which it cannot drain, to release it then."""

    partition: int


Action: TypeAlias = Claim | Revoke | Release | Drop | Abandon


@dataclass(slots=True)
class Holdings:
    """The partitions of this host by number, and the troublesome ones."""

    terms: Terms = field(default_factory=Terms)
    held: dict[int, Holding] = field(default_factory=dict)
    troubles: dict[int, Trouble] = field(default_factory=dict)

    def claimed(self, partition: int, epoch: int, now_s: float) -> None:
        """Note that the partition is ours under a new epoch, and on its way to a shard."""
        self.held[partition] = Holding(epoch=epoch, phase=Phase.OPENING, since_s=now_s)

    def happened(self, partition: int, epoch: int, what: Happening, now_s: float) -> bool:
        """Follow the table; return whether anything changed. Old epochs change nothing."""
        holding = self.held.get(partition)
        if holding is None or holding.epoch != epoch:
            return False
        phase = TRANSITIONS[holding.phase].get(what)
        if phase is None:
            return False
        served = holding.phase is Phase.SERVING
        if served and now_s - holding.since_s >= self.terms.healthy_s:
            self.troubles.pop(partition, None)
        holding.phase, holding.since_s = phase, now_s
        return True

    def forget(self, partition: int) -> None:
        self.held.pop(partition, None)

    def trouble(self, partition: int, reason: str, now_s: float) -> float:
        """Note that hosting it failed; return how long to leave it alone."""
        trouble = self.troubles.setdefault(partition, Trouble(since_s=now_s))
        pause_s = min(self.terms.retry_s_max, self.terms.retry_s_min * 2.0**trouble.count)
        trouble.count = min(trouble.count + 1, 30)
        trouble.retry_at_s, trouble.reason = now_s + pause_s, reason
        return pause_s

    def retry_due(self, partition: int, now_s: float) -> bool:
        trouble = self.troubles.get(partition)
        return trouble is None or now_s >= trouble.retry_at_s

    def count(self, phases: Iterable[Phase]) -> int:
        wanted = set(phases)
        return sum(holding.phase in wanted for holding in self.held.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a host decides by: the view, who it is, and its own clock."""

    view: View
    me: str
    desired: list[str | None]
    now_s: float
    settled: bool
    """The hosts have been the same for a while: giving partitions away is not premature."""

    def wanted(self, partition: int) -> bool:
        return self.desired[partition] == self.me

    def live(self) -> set[str]:
        return live_owners(self.view).keys() | {self.me}


def live_owners(view: View) -> dict[str, bool]:
    """Return the owners whose lease holds by database time, and whether each is draining."""
    return {
        owner_name(host.host_id, host.incarnation): host.draining
        for host in view.hosts
        if host.expires_at > view.now
    }


def desired_owners(view: View) -> list[str | None]:
    """Return who should own each partition, judging by the view alone.

    A host without an address cannot be reached by others, so it owns nothing while there are
    hosts that can. If there are none, one host owns everything, the one that owns most already:
    what is spread over hosts that do not reach each other would stand still.

    Nor does a host without shards own anything while there are hosts with some: whose shards end
    again and again starts them ever more slowly.
    """
    live = live_owners(view)
    owners = [row.owner for row in view.partitions]
    hosts = {
        name: host
        for host in view.hosts
        if live.get(name := owner_name(host.host_id, host.incarnation)) is False
    }
    reachable = {name: host.shards for name, host in hosts.items() if host.address}
    shares = {name: shards for name, shards in reachable.items() if shards}
    if not shares:
        shares = dict.fromkeys(reachable, 1)
    if not shares and hosts:
        shares = {max(sorted(hosts), key=owners.count): 1}
    return place(shares, owners)


def plan(outlook: Outlook, holdings: Holdings) -> list[Action]:
    """Return what to do now, in order: what ends first, so that others need not wait."""
    live = outlook.live()
    actions: list[Action] = []
    for row in outlook.view.partitions:
        holding = holdings.held.get(row.partition)
        if holding is None:
            action = _for_others(row, outlook, holdings, live)
        else:
            action = _for_ours(row, holding, outlook, holdings)
        if action is not None:
            actions.append(action)
    return _limited(actions, holdings)


def _for_others(
    row: Ownership, outlook: Outlook, holdings: Holdings, live: set[str]
) -> Action | None:
    free = row.owner is None or row.owner == outlook.me or row.owner not in live
    if outlook.wanted(row.partition):
        if free and holdings.retry_due(row.partition, outlook.now_s):
            return Claim(row.partition, row.epoch)
    elif row.owner == outlook.me:
        return Release(row.partition, row.epoch)  # claimed by a call whose answer was lost
    return None


def is_taken(row: Ownership, holding: Holding, me: str) -> bool:
    """Return whether somebody else has what we hold."""
    if row.epoch > holding.epoch:
        # Unless reclaimed by a call whose answer was lost.
        return row.owner != me or holding.phase not in {Phase.RECLAIMING, Phase.BROKEN}
    # Without a claim: somebody called `leave` for us.
    left = row.epoch == holding.epoch and row.owner != me
    return left and holding.phase is not Phase.GIVING


def _for_ours(
    row: Ownership, holding: Holding, outlook: Outlook, holdings: Holdings
) -> Action | None:
    partition = row.partition
    if is_taken(row, holding, outlook.me):
        return Drop(partition)
    if row.epoch > holding.epoch:
        return Claim(partition, row.epoch)
    if row.epoch < holding.epoch:
        # The view is from before our claim: no ground for giving the partition away.
        outlook = replace(outlook, settled=False)
    return _BY_PHASE[holding.phase](partition, holding, outlook, holdings)


def _when_with_shard(
    partition: int, _holding: Holding, outlook: Outlook, _holdings: Holdings
) -> Action | None:
    if outlook.wanted(partition) or not outlook.settled:
        return None
    return Revoke(partition)


def _when_revoking(
    partition: int, holding: Holding, outlook: Outlook, holdings: Holdings
) -> Action | None:
    overdue = outlook.now_s - holding.since_s > holdings.terms.revoke_s_max
    return Abandon(partition) if overdue else None


def _when_moving(
    partition: int, holding: Holding, outlook: Outlook, holdings: Holdings
) -> Action | None:
    return _when_with_shard(partition, holding, outlook, holdings) or _when_revoking(
        partition, holding, outlook, holdings
    )


def _when_giving(
    partition: int, holding: Holding, _outlook: Outlook, _holdings: Holdings
) -> Action | None:
    return Release(partition, holding.epoch)


def _when_abandoned(
    _partition: int, _holding: Holding, _outlook: Outlook, _holdings: Holdings
) -> Action | None:
    return None  # the shard answers, or its watchdog ends it


def _when_homeless(
    partition: int, holding: Holding, outlook: Outlook, holdings: Holdings
) -> Action | None:
    if not outlook.wanted(partition) and outlook.settled:
        return Release(partition, holding.epoch)
    if holding.phase is Phase.BROKEN and not holdings.retry_due(partition, outlook.now_s):
        return None
    return Claim(partition, holding.epoch)


_Decide: TypeAlias = Callable[[int, Holding, Outlook, Holdings], Action | None]
_BY_PHASE: Mapping[Phase, _Decide] = {
    Phase.OPENING: _when_with_shard,
    Phase.SERVING: _when_with_shard,
    Phase.MOVING: _when_moving,
    Phase.REVOKING: _when_revoking,
    Phase.ABANDONED: _when_abandoned,
    Phase.GIVING: _when_giving,
    Phase.RECLAIMING: _when_homeless,
    Phase.BROKEN: _when_homeless,
}
_ORDER = (Drop, Abandon, Release, Revoke, Claim)


def _limited(actions: list[Action], holdings: Holdings) -> list[Action]:
    revokes = holdings.terms.handovers_max - holdings.count({Phase.REVOKING})
    claims = holdings.terms.opening_max - holdings.count({Phase.OPENING})
    room = {Revoke: max(0, revokes), Claim: max(0, claims)}
    ordered: list[Action] = []
    for kind in _ORDER:
        chosen = [action for action in actions if isinstance(action, kind)]
        ordered += chosen[: room.get(kind, len(chosen))]
    return ordered
