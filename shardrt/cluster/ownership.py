"""Claiming, assigning, and giving up partitions, one at a time, as `holdings.plan` says.

Claims and releases go one after the other over one connection: they take a round trip each,
and must never compete with the renewal of the lease. A claim whose outcome is unknown is
settled by the next view.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, assert_never

from shardrt.cluster.alarms import Alarms
from shardrt.cluster.holdings import (
    Abandon,
    Action,
    Claim,
    Drop,
    Happening,
    Holdings,
    Outlook,
    Phase,
    Release,
    Revoke,
    Terms,
    desired_owners,
    is_taken,
    live_owners,
    plan,
)
from shardrt.cluster.known import Known
from shardrt.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.cluster.renewal import Monotonic
    from shardrt.store.base import Leases, View

logger = logging.getLogger(__name__)

LOOK_S_MIN = 0.1
"""Shortest time between two looks at the hub, while another host hands over to us."""
SETTLED_TTLS = 1 / 3
"""The same hosts for this part of a TTL, and partitions may move to balance the load."""


class Sink(Protocol):
    """Hosts partitions on our behalf. Never blocks, never raises.

    It answers by `Ownership.opened`, `released` and `lost`, from the same event loop.
    """

    def assign(self, partition: int, epoch: int) -> None:
        """Host this partition. If it is hosted under an older epoch, that ends here."""
        ...

    def revoke(self, partition: int, epoch: int) -> None:
        """Drain it and answer `released`."""
        ...

    def discard(self, partition: int, epoch: int) -> None:
        """Forget it at once, and answer `released` then."""
        ...

    def lease(self, until_s: float, clock_offset: int) -> None:
        """Serve until this monotonic time. Database time is monotonic time + offset (µs)."""
        ...

    def looked(self, view: View) -> None:
        """Learn how the hub looks: for routes to other hosts."""
        ...

    def drain(self, grace_s: float) -> None:
        """Drain everything, with this much time for activities; answer `released` for each."""
        ...


class Ownership:
    """The partitions of this host. `run` acts on them until cancelled; implements `Owner`."""

    def __init__(
        self,
        *,
        store: Leases,
        sink: Sink,
        clock: Monotonic,
        terms: Terms,
        holds: Callable[[], bool],
        gave: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.holdings = Holdings(terms)
        self.alarms = Alarms(terms.ttl_s)
        self._known = Known()
        self.view: View | None = None
        self.desired: list[str | None] = []
        self.empty = asyncio.Event()
        """Set while nothing is held and we are leaving."""
        self.changed = asyncio.Event()
        """Set whenever a phase changed; whoever waits for it clears it."""
        self._store = store
        self._sink = sink
        self._clock = clock
        self._ttl_s = terms.ttl_s
        self._holds = holds
        """Whether the lease holds: nothing is claimed otherwise."""
        self._gave = gave
        """Called with the owner for whom something was released just now."""
        self._me = ""
        self._leaving = False
        self._refused: set[int] = set()
        """Claims refused since the last view: repeating them is of no use."""
        self._hosts: frozenset[str] = frozenset()
        self._hosts_since_s = 0.0
        """Since when the live hosts have been these."""
        self._awaited: set[int] = set()
        """What other hosts are to hand over to us, or to claim."""
        self._awaited_since_s = 0.0
        self._work = asyncio.Event()

    # -- the lease tells --------------------------------------------------------------------

    def renewed(self, me: str, view: View) -> None:
        """Take in a new view, and act on it.

        What others have taken meanwhile is dropped before this returns: our lease may have run
        out in between, and a shard that is told of the new one would answer for all it has.
        """
        now_s = self._clock.monotonic_s()
        if problem := self._known.contradicted_by(view):
            # What is in memory may contradict the store, and epochs may be given out again.
            logger.error("host=%s the store is not what it was: %s; starting over", me, problem)
            self.fenced()
        self._known = Known.of(view, self.holdings)
        self._me, self.view = me, view
        for row in view.partitions:
            holding = self.holdings.held.get(row.partition)
            if holding is not None and is_taken(row, holding, me):
                self._drop(row.partition)
        self.desired = desired_owners(view)
        self._refused.clear()
        hosts = frozenset(live_owners(view))
        if hosts != self._hosts:
            self._hosts, self._hosts_since_s = hosts, now_s
        awaited = {
            row.partition
            for row, wanted in zip(view.partitions, self.desired, strict=True)
            if wanted is not None
            and row.owner != wanted
            and (wanted == me if row.owner in hosts else wanted != me)
        }
        if awaited != self._awaited:
            self._awaited, self._awaited_since_s = awaited, now_s
        self.alarms.look(view, me, self.holdings, now_s)
        self._sink.looked(view)
        self._note()

    def fenced(self) -> None:
        """Drop everything: somebody else took our place."""
        self.view = None
        if self.holdings.held:
            logger.warning("host=%s drops %d partitions", self._me, len(self.holdings.held))
        for partition, holding in list(self.holdings.held.items()):
            self._forget(partition, holding.epoch)
        self._note()

    def look_again_s(self) -> float | None:
        """Return how soon another look makes sense: often at first, then ever less so."""
        if not self._awaited:
            return None
        return LOOK_S_MIN + (self._clock.monotonic_s() - self._awaited_since_s) / 4

    # -- shards tell (host.ports.Owner) -----------------------------------------------------

    def opened(self, partition: int, epoch: int) -> None:
        if self._happened(partition, epoch, Happening.OPENED):
            logger.debug("partition=%d epoch=%d serves", partition, epoch)

    def released(self, partition: int, epoch: int) -> None:
        self._happened(partition, epoch, Happening.RELEASED)

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        now_s = self._clock.monotonic_s()
        holding = self.holdings.held.get(partition)
        if holding is None or holding.epoch != epoch:
            return
        pause_s = self.holdings.trouble(partition, broken or "fenced", now_s)
        if broken:
            logger.error(
                "partition=%d epoch=%d broken, next try in %.1f s: %s",
                partition,
                epoch,
                pause_s,
                broken,
            )
            self._happened(partition, epoch, Happening.BROKE)
        else:
            logger.warning("partition=%d epoch=%d taken by another owner", partition, epoch)
            self.holdings.forget(partition)
            self._note()

    def shard_died(self, partitions: list[int]) -> None:
        """Claim these again, under new epochs, before anybody else opens them."""
        now_s = self._clock.monotonic_s()
        for partition in partitions:
            if (holding := self.holdings.held.get(partition)) is not None:
                self.holdings.happened(partition, holding.epoch, Happening.SHARD_DIED, now_s)
        self._note()

    def move(self, partitions: list[int]) -> None:
        """Have these drained and assigned anew, to another shard of this host."""
        for partition in partitions:
            holding = self.holdings.held.get(partition)
            if holding and self._happened(partition, holding.epoch, Happening.MOVE):
                self._sink.revoke(partition, holding.epoch)

    # -- acting -----------------------------------------------------------------------------

    def leave(self, grace_s: float) -> None:
        """Start to give up everything; `empty` is set when that is done."""
        self._leaving = True
        now_s = self._clock.monotonic_s()
        for partition, holding in self.holdings.held.items():
            self.holdings.happened(partition, holding.epoch, Happening.REVOKE, now_s)
        self._sink.drain(grace_s)
        self._note()

    def abandon(self) -> None:
        """Take away what has not been drained."""
        for partition in list(self.holdings.held):
            self._abandon(partition)

    @property
    def is_orphaned(self) -> bool:
        """Whether there is something that nobody serves, and somebody who should."""
        if self.view is None or not any(self.desired):
            return False
        live = live_owners(self.view).keys() - {self._me}
        return any(row.owner not in live for row in self.view.partitions)

    @property
    def settled(self) -> bool:
        """Whether everything that can serve here by the latest view does."""
        if self.view is None or self.holdings.count({Phase.OPENING, Phase.RECLAIMING}):
            return False
        return not any(isinstance(action, Claim) for action in self._plan())

    async def run(self) -> None:
        """Act until cancelled, whenever something happened or a new view came."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                while actions := self._plan():
                    for action in actions:
                        await self._act(action)
            except StoreError as error:
                # The next view brings us back here.
                logger.warning("host=%s claims and releases wait: %s", self._me, error)
            self.changed.set()

    def _plan(self) -> list[Action]:
        if self.view is None or not self._holds():
            return []
        now_s = self._clock.monotonic_s()
        outlook = Outlook(
            view=self.view,
            me=self._me,
            desired=[None] * len(self.desired) if self._leaving else self.desired,
            now_s=now_s,
            settled=self._leaving or now_s - self._hosts_since_s >= self._ttl_s * SETTLED_TTLS,
        )
        actions = plan(outlook, self.holdings)
        return [action for action in actions if action.partition not in self._refused]

    async def _act(self, action: Action) -> None:
        match action:
            case Claim():
                await self._claim(action.partition, action.seen_epoch)
            case Release():
                await self._release(action.partition, action.epoch)
            case Revoke():
                self._revoke(action.partition)
            case Drop():
                self._drop(action.partition)
            case Abandon():
                self._abandon(action.partition)
            case _:
                assert_never(action)

    async def _claim(self, partition: int, seen_epoch: int) -> None:
        me = self._me
        held = self.holdings.held.get(partition)
        if held is not None and held.phase not in {Phase.RECLAIMING, Phase.BROKEN}:
            return  # it moved on since the plan was made
        epoch = await self._store.claim(partition, seen_epoch, me)
        if epoch is None:
            self._refused.add(partition)
            self.holdings.forget(partition)
        elif me == self._me and not self._leaving:
            self.holdings.claimed(partition, epoch, self._clock.monotonic_s())
            logger.debug("partition=%d epoch=%d claimed", partition, epoch)
            self._sink.assign(partition, epoch)
        else:
            await self._store.release(partition, epoch)

    async def _release(self, partition: int, epoch: int) -> None:
        await self._store.release(partition, epoch)
        held = self.holdings.held.get(partition)
        if held is None or held.epoch == epoch:
            self.holdings.forget(partition)
            # The view may still name us as the owner.
            self._refused.add(partition)
        self._note()
        heir = self.desired[partition]
        if heir is not None and heir != self._me:
            self._gave(heir)

    def _revoke(self, partition: int) -> None:
        holding = self.holdings.held.get(partition)
        if holding and self._happened(partition, holding.epoch, Happening.REVOKE):
            logger.info("partition=%d epoch=%d is handed over", partition, holding.epoch)
            self._sink.revoke(partition, holding.epoch)

    def _drop(self, partition: int) -> None:
        holding = self.holdings.held.get(partition)
        if holding is not None:
            logger.warning("partition=%d epoch=%d is another owner's", partition, holding.epoch)
            self._forget(partition, holding.epoch)

    def _abandon(self, partition: int) -> None:
        holding = self.holdings.held.get(partition)
        if holding and self._happened(partition, holding.epoch, Happening.ABANDON):
            logger.error("partition=%d epoch=%d could not be drained", partition, holding.epoch)
            self._sink.discard(partition, holding.epoch)

    def _forget(self, partition: int, epoch: int) -> None:
        self.holdings.forget(partition)
        self._sink.discard(partition, epoch)

    def _happened(self, partition: int, epoch: int, what: Happening) -> bool:
        changed = self.holdings.happened(partition, epoch, what, self._clock.monotonic_s())
        self._note()
        return changed

    def _note(self) -> None:
        self._work.set()
        self.changed.set()
        if self._leaving and not self.holdings.held:
            self.empty.set()
