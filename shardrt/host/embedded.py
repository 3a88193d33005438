"""A host in one event loop: one shard and its membership, without child processes.

The embedded counterpart of the supervisor. One loop does everything, so a long computation in
it delays the renewal of the lease too; should the lease run out meanwhile, nothing is
committed or answered until it is renewed.

Partitions of other hosts are reached by their addresses. A host without an address cannot be
reached by the others; see `cluster.holdings.desired_owners` for what it owns.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from shardrt.cluster.announcing import Announcer
from shardrt.cluster.holdings import Terms
from shardrt.cluster.membership import Membership
from shardrt.cluster.peers import PeerVisitor
from shardrt.cluster.reach import Reach
from shardrt.cluster.routing import STRANDED_S, Router
from shardrt.cluster.targets import routes_to_hosts
from shardrt.errors import ConfigInvalid, ShardrtError
from shardrt.host.clock import HubClock
from shardrt.host.health import Report, report_of
from shardrt.host.imports import reference_to
from shardrt.host.keeping import keep_also_peers, keep_in_process
from shardrt.host.local import LocalVisitor
from shardrt.host.network import Network
from shardrt.host.shard import Shard
from shardrt.host.visitor import Visitor
from shardrt.host.worker_pool import AppSource
from shardrt.links.metrics import Sample, Samples
from shardrt.store.base import Host

if TYPE_CHECKING:
    from shardrt.config import Settings
    from shardrt.links.base import Link, LinkHandler
    from shardrt.orchestration.app import App
    from shardrt.store.base import Store, View
    from shardrt.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

HERE = "here"
"""The target that stands for the shard of this host."""


class EmbeddedHost:
    """Serves from `start` until `stop`. Implements `cluster.ownership.Sink`, `ports.Owner`.

    The store is opened and closed here. `address` is the URL at which others reach
    `accept_peer`; empty if they do not.
    """

    def __init__(  # noqa: PLR0913 - its whole surroundings
        self,
        settings: Settings,
        app: App,
        store: Store,
        *,
        host_id: str,
        version: str,
        address: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._tracer = tracer
        self._app = app
        self._source = _source_of(app)
        self._store = store
        self._clock = HubClock()
        self._started_s = self._clock.monotonic_s()
        self._life: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._view: View | None = None
        self.partitions = 0
        self.hub_id = ""
        self.reach = Reach()
        self.membership = Membership(
            Host(host_id=host_id, incarnation="", address=address, shards=1, version=version),
            store=store,
            sink=self,
            clock=self._clock,
            terms=Terms.of(settings.host),
        )
        self.shard: Shard
        """There is one from `start` on."""
        self.router: Router
        """Likewise. Leads to other hosts, and those to the shard."""
        self.announcer = Announcer()
        self._network: Network

    async def start(self) -> None:
        """Serve; return once everything that this host can serve is served.

        Raises:
            StoreError: the store is not reachable, or not ours.
            ConfigInvalid: another running host has our id.
        """
        await self._store.open()
        try:
            hub = await self._store.create(self._settings.hub.partitions)
            self.partitions, self.hub_id = hub.partitions, hub.id
            self._connect(hub.partitions)
            # Not of a task group of the caller's: it lives from `start` to `stop`, which may
            # be called by different tasks. `stop` awaits it.
            self._life = asyncio.create_task(self._live())
            await self._wait_settled(self._life)
        except BaseException:
            await self._end()
            raise

    async def stop(self, grace_s: float) -> None:
        """Drain, hand over, and end.

        Raises:
            ShardrtError, or whatever ended this host before.
        """
        assert self._life is not None, "started"
        try:
            if not self._life.done():
                await self.membership.leave(grace_s)
            await self._life
        finally:
            await self._end()

    def hurry(self) -> None:
        """Do not wait any longer for what `stop` has not drained so far."""
        self.membership.hurry()

    async def ended(self) -> None:
        """Wait until this host has ended by itself, which is a failure."""
        assert self._life is not None, "started"
        await asyncio.wait([self._life])

    def accept(self, link: Link) -> Visitor:
        """Let somebody talk to the shard: a client or a gateway in this process."""
        return LocalVisitor(self, link)

    def accept_peer(self, link: Link) -> LinkHandler:
        """Let another host of the hub in."""
        return PeerVisitor(self.router, link, look=self.membership.look)

    @property
    def owner(self) -> str:
        """The owner that this host is, by which others expect it."""
        return self.membership.owner

    def describe(self) -> dict[str, Any]:
        """Return the hub as this host sees it, as JSON-able facts."""
        facts = self.membership.describe()
        progress, quarantined = self.shard.progress(), self.shard.quarantined()
        for row in facts["partitions"]:
            if (lsns := progress.get(row["partition"])) is not None:
                row["applied_lsn"], row["commit_lsn"], row["checkpoint_lsn"] = lsns
            if instances := quarantined.get(row["partition"]):
                row["quarantined"] = instances
        return facts

    def health(self) -> Report:
        """Return how this host stands."""
        child = {
            "name": "shard-0",
            "role": "shard",
            "pid": os.getpid(),
            "ready": True,
            "uptime_s": round(self._clock.monotonic_s() - self._started_s, 3),
            "restarts": 0,
            "partitions": sorted(self.membership.serving()),
            "counters": self.shard.counters(),
        }
        facts = {"children": [child], "unreachable": self.reach.problem}
        return report_of(self.describe() | facts, self._settings)

    def samples(self) -> Samples:
        """Return what this host has counted and measured."""
        served = len(self.membership.serving())
        return {**self.shard.samples(), "lease_active_count": [((), Sample(served))]}

    # -- cluster.ownership.Sink -------------------------------------------------------------

    def assign(self, partition: int, epoch: int) -> None:
        self.shard.assign(partition, epoch)

    def revoke(self, partition: int, epoch: int) -> None:  # noqa: ARG002 - there is one shard
        self.shard.revoke(partition)

    def discard(self, partition: int, epoch: int) -> None:
        self.shard.discard(partition)
        self.membership.released(partition, epoch)

    def lease(self, until_s: float, clock_offset: int) -> None:
        self._clock.correct(clock_offset)
        self.shard.extend_lease(until_s)

    def looked(self, view: View) -> None:
        self._view = view
        self.reach.look(view, self.owner)
        self._route()

    def drain(self, grace_s: float) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self.shard.drain(grace_s))

    # -- host.ports.Owner -------------------------------------------------------------------

    def opened(self, partition: int, epoch: int) -> None:
        self.membership.opened(partition, epoch)
        self._route()

    def released(self, partition: int, epoch: int) -> None:
        self.membership.released(partition, epoch)
        self._route()

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        self.membership.lost(partition, epoch, broken)
        self._route()

    # ---------------------------------------------------------------------------------------

    def _route(self) -> None:
        if self._view is None:
            return
        targets = routes_to_hosts(self._view, self.owner)
        for partition in self.membership.serving():
            targets[partition] = HERE
        self.router.set_routes(targets)
        self.announcer.set_routes(targets, self._view.era)
        self._network.route(targets)

    def _connect(self, partitions: int) -> None:
        """Make the shard, and what leads to it and from it."""
        settings = self._settings

        def receive(message: Any) -> None:
            self.shard.receive(message)

        def reached(partitions: set[int]) -> None:
            self.shard.reached(partitions)

        here = keep_in_process({HERE: lambda link: Visitor(self.shard, link)})
        limits, ca_file = settings.limits, settings.host.tls_ca
        keep = keep_also_peers(here, settings.tokens(), limits.payload_bytes_max, ca_file)
        look = self.membership.look
        stranded_s_max = settings.host.lease_ttl_s + STRANDED_S
        self.router = Router(partitions, keep=keep, stranded_s_max=stranded_s_max, look=look)
        self._network = Network(HERE, receive, keep=keep, reached=reached, look=look)
        self.shard = self._make_shard(partitions)
        self.membership.nudge = lambda target: self.router.nudge([target])

    def _make_shard(self, partitions: int) -> Shard:
        return Shard(
            settings=self._settings,
            app=self._app,
            store=self._store,
            clock=self._clock,
            network=self._network,
            owner=self,
            partitions=partitions,
            name=self.membership.host.host_id,
            source=self._source,
            tracer=self._tracer,
        )

    async def _live(self) -> None:
        """Run shard and membership; if one fails, so does the other."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                parts = [
                    tasks.create_task(self.shard.run()),
                    tasks.create_task(self.router.run()),
                    tasks.create_task(self._network.run()),
                ]
                await self.membership.run()
                for part in parts:
                    part.cancel()
        except* ShardrtError as group:
            raise group.exceptions[0] from None
        finally:
            self._tasks = None

    async def _wait_settled(self, life: asyncio.Task[None]) -> None:
        settled = asyncio.create_task(self.membership.wait_settled())
        try:
            await asyncio.wait([life, settled], return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()
        if life.done():
            await life

    async def _end(self) -> None:
        if self._life is not None and not self._life.done():
            self._life.cancel()
            await asyncio.wait([self._life])
        await self._store.close()


def _source_of(app: App) -> AppSource | None:
    """Return where worker processes find the app, if it needs any. Raises `ConfigInvalid`."""
    names = [each.name for each in app.activities if each.executor == "process"]
    if not names:
        return None
    reference = reference_to(app)
    if reference is None:
        raise ConfigInvalid(
            f'activities with executor="process" ({", ".join(names)}) need an app that worker '
            "processes can import: a variable at the top level of a module, other than the "
            "script that is started"
        )
    return AppSource(reference, [path or os.getcwd() for path in sys.path])
