"""This host's part in the hub: its lease, and the partitions it owns by it.

`Membership` joins the two halves: `renewal` keeps the lease, and nothing may delay it;
`ownership` claims and gives up partitions. Who hosts them is behind `Sink`: the child
processes of a supervisor, or one shard in this process.

Database time alone decides who may claim, epochs alone decide who may write; this host's own
clock only makes it stop earlier.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from shardrt.cluster.holdings import HANDOVER_S, Phase, Terms, live_owners
from shardrt.cluster.identity import owner_name
from shardrt.cluster.ownership import Ownership, Sink
from shardrt.cluster.renewal import Identities, LeaseKeeper, Monotonic
from shardrt.cluster.targets import live_targets
from shardrt.errors import ShardrtError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shardrt.cluster.lease import LeaseState
    from shardrt.store.base import Host, Leases, View

logger = logging.getLogger(__name__)

WITHDRAW_S_MAX = 5.0
"""How long the store may take to note that we are gone."""
SUCCESSION_S_MAX = 5.0
"""How long we stay for others to claim what we have released."""
CONFIRM_S = 3.0
"""How long shards may take to forget what was taken away from them."""


class Membership:
    """Keeps the lease and the partitions of one host.

    Run `run` as a task; end it by `leave`. Implements `host.ports.Owner` for its sink.
    """

    def __init__(
        self,
        host: Host,
        *,
        store: Leases,
        sink: Sink,
        clock: Monotonic,
        terms: Terms | None = None,
        identities: Identities | None = None,
    ) -> None:
        terms = terms or Terms()
        self._sink = sink
        self._clock = clock
        self._lease = LeaseKeeper(
            host, store=store, clock=clock, ttl_s=terms.ttl_s, identities=identities
        )
        self._ownership = Ownership(
            store=store,
            sink=sink,
            clock=clock,
            terms=terms,
            holds=lambda: self._lease.holds,
            gave=self._gave,
        )
        self.nudge: Callable[[str], None] = lambda _: None
        """Called with the target of a host that should look at the hub now."""
        self._is_hurried = False
        self._drained = asyncio.Event()
        self._gone = asyncio.Event()

    @property
    def host(self) -> Host:
        """This host's row, as it was last written or will be next."""
        return self._lease.host

    @property
    def owner(self) -> str:
        """The owner that this host is."""
        return self._lease.owner

    @property
    def state(self) -> LeaseState:
        return self._lease.state

    @property
    def until_s(self) -> float:
        """Monotonic time until which this host may serve."""
        return self._lease.until_s

    @property
    def view(self) -> View | None:
        """How the hub looked at the last renewal; None before the first."""
        return self._ownership.view

    @property
    def settled(self) -> bool:
        """Whether every partition that this host can serve now is served."""
        return self._lease.holds and self._ownership.settled

    async def wait_settled(self) -> None:
        """Wait until `settled`; unbounded, as the store may be away."""
        while not self.settled:
            self._ownership.changed.clear()
            await self._ownership.changed.wait()

    async def run(self) -> None:
        """Take part in the hub until `leave` has ended, or until cancelled.

        Raises:
            ConfigInvalid: another live host has our id.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                lease = tasks.create_task(self._lease.run(self))
                ownership = tasks.create_task(self._ownership.run())
                await self._drained.wait()
                self._lease.stop()
                # A renewal in flight would bring the row back that we are about to delete.
                await lease
                ownership.cancel()
            if self._ownership.empty.is_set():
                await self._lease.withdraw(WITHDRAW_S_MAX)
        except* ShardrtError as group:
            raise group.exceptions[0] from None
        finally:
            self._gone.set()

    def weigh(self, shards: int) -> None:
        """Serve with so many shards from now on; with none, leave partitions to other hosts."""
        self._lease.weigh(shards)

    async def leave(self, grace_s: float) -> None:
        """Hand everything over, delete our row, and end `run`, which must be running.

        Args:
            grace_s: time for activities; what is not drained soon after that is dropped as it
                is, which loses nothing that was acknowledged.
        """
        self._lease.leave()
        self._ownership.leave(grace_s)
        if not await self._is_empty(grace_s + HANDOVER_S):
            logger.warning("host=%s drained only in part", self.host.host_id)
            self._ownership.abandon()
            if not await self._is_empty(CONFIRM_S):
                # A shard may still answer for them: others must wait until its lease is over.
                logger.warning("host=%s leaves the rest to the end of its lease", self.host.host_id)
        elif self.has_heirs:
            await self._succession()
        self._drained.set()
        await self._gone.wait()

    @property
    def has_heirs(self) -> bool:
        """Whether there is another host that can be reached and takes over what we leave."""
        if self.view is None:
            return False
        live, targets = live_owners(self.view), live_targets(self.view)
        return any(not live[owner] for owner in targets if owner != self.owner)

    async def _succession(self) -> None:
        """Wait until others own what was ours: until then nobody knows where it is."""
        try:
            async with asyncio.timeout(SUCCESSION_S_MAX):
                while self._ownership.is_orphaned and not self._is_hurried:
                    self._ownership.changed.clear()
                    await self._ownership.changed.wait()
        except TimeoutError:
            logger.warning("host=%s leaves before others have taken over", self.host.host_id)

    def _gave(self, owner: str) -> None:
        """Have the hub looked at by whom something was released for, and by us for who has it."""
        target = None if self.view is None else live_targets(self.view).get(owner)
        if target is not None:
            self.nudge(target)
        self._lease.look()

    async def _is_empty(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                return await self._ownership.empty.wait()
        except TimeoutError:
            return False

    def leave_now(self) -> None:
        """Do not wait for others to take over what has been released."""
        self._is_hurried = True
        self._ownership.changed.set()

    def hurry(self) -> None:
        """Drop what `leave` has not drained so far."""
        self._ownership.fenced()
        self.leave_now()

    def look(self) -> None:
        """Look at the hub now: a hint came that something has changed."""
        self._lease.look()

    def shard_died(self, partitions: Iterable[int]) -> None:
        """Claim these again under new epochs, then assign them anew."""
        self._ownership.shard_died(list(partitions))

    def move(self, partitions: Iterable[int]) -> None:
        """Drain these and assign them anew, so that another shard can have them."""
        self._ownership.move(list(partitions))

    # -- host.ports.Owner -------------------------------------------------------------------

    def opened(self, partition: int, epoch: int) -> None:
        self._ownership.opened(partition, epoch)

    def released(self, partition: int, epoch: int) -> None:
        self._ownership.released(partition, epoch)

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        self._ownership.lost(partition, epoch, broken)

    # -- renewal.Observer -------------------------------------------------------------------

    def renewed(self, view: View, until_s: float) -> None:
        # The database's time was read before the answer came: a lower bound.
        offset = view.now - round(self._clock.monotonic_s() * 1_000_000)
        # First what is not ours any more: the sink serves all it has as long as the lease holds.
        self._ownership.renewed(self._lease.owner, view)
        self._sink.lease(until_s, offset)

    def fenced(self, owner: str) -> None:
        logger.warning("lease lost to another process; joining again as %s", owner)
        self._ownership.fenced()

    def look_again_s(self) -> float | None:
        return self._ownership.look_again_s()

    # ---------------------------------------------------------------------------------------

    def serving(self) -> dict[int, int]:
        """Return partition → epoch of what shards of this host serve now.

        Also what they are to give up: until they do they serve it.
        """
        return {
            partition: holding.epoch
            for partition, holding in self._ownership.holdings.held.items()
            if holding.phase in {Phase.SERVING, Phase.MOVING, Phase.REVOKING}
        }

    def describe(self) -> dict[str, Any]:
        """Return the hub as this host sees it, as JSON-able facts."""
        view, lease = self.view, self._lease
        return {
            "host_id": self.host.host_id,
            "incarnation": self.host.incarnation,
            "lease": str(self.state),
            "renewed_s": None
            if lease.renewed_s is None
            else round(self._clock.monotonic_s() - lease.renewed_s, 3),
            "ping_s": None if lease.ping_s is None else round(lease.ping_s, 4),
            "problem": lease.problem,
            "hosts": [] if view is None else _describe_hosts(view),
            "partitions": [] if view is None else self._describe_partitions(view),
        }

    def _describe_partitions(self, view: View) -> list[dict[str, Any]]:
        held, troubles = self._ownership.holdings.held, self._ownership.holdings.troubles
        alarms, serving = self._ownership.alarms, self.serving()
        now_s = self._clock.monotonic_s()
        rows = []
        for row in view.partitions:
            holding = held.get(row.partition)
            trouble = troubles.get(row.partition)
            rows.append(
                {
                    "partition": row.partition,
                    "owner": self.host.host_id
                    if holding and holding.epoch >= row.epoch
                    else (row.owner or "").rpartition("/")[0] or None,
                    "epoch": holding.epoch if holding else row.epoch,
                    "phase": str(holding.phase) if holding else None,
                    "commit_lsn": row.commit_lsn,
                    "checkpoint_lsn": row.checkpoint_lsn,
                    "trouble": trouble.reason if trouble else None,
                    "trouble_s": round(now_s - trouble.since_s, 1) if trouble else None,
                    # The alarms know what the latest view has shown; here it may be served since.
                    "unserved_s": None
                    if row.partition in serving
                    else alarms.unserved_s(row.partition, now_s),
                }
            )
        return rows


def _describe_hosts(view: View) -> list[dict[str, Any]]:
    live = live_owners(view)
    return [
        {
            "host_id": host.host_id,
            "incarnation": host.incarnation,
            "address": host.address,
            "shards": host.shards,
            "live": owner_name(host.host_id, host.incarnation) in live,
            "draining": host.draining,
            "version": host.version,
            "expires_in_s": (host.expires_at - view.now) / 1_000_000,
        }
        for host in view.hosts
    ]
