"""A host in one event loop: one shard and its membership, without child processes.

The embedded counterpart of the supervisor. One loop does everything, so a long computation in
it delays the renewal of the lease too; should the lease run out meanwhile, nothing is
committed or answered until it is renewed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.cluster.holdings import Terms
from shardrt.cluster.membership import Membership
from shardrt.errors import ConfigInvalid, ShardrtError
from shardrt.host.clock import HubClock
from shardrt.host.imports import reference_to
from shardrt.host.network import Loopback
from shardrt.host.shard import Shard
from shardrt.host.visitor import Visitor
from shardrt.host.worker_pool import AppSource
from shardrt.links.admin import Cluster, Metrics, Question
from shardrt.links.messages import Answer, Ask
from shardrt.links.metrics import Sample, Samples
from shardrt.store.base import Host

if TYPE_CHECKING:
    from shardrt.config import Settings
    from shardrt.links.base import Link
    from shardrt.orchestration.app import App
    from shardrt.store.base import Store, View

logger = logging.getLogger(__name__)

_decode_question = msgspec.json.Decoder(Question).decode


class EmbeddedHost:
    """Serves from `start` until `stop`. Implements `cluster.ownership.Sink`.

    The store is opened and closed here.
    """

    def __init__(
        self, settings: Settings, app: App, store: Store, *, host_id: str, version: str
    ) -> None:
        self._settings = settings
        self._app = app
        self._source = _source_of(app)
        self._store = store
        self._clock = HubClock()
        self._life: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self.partitions = 0
        self.membership = Membership(
            Host(host_id=host_id, incarnation="", address="", shards=1, version=version),
            store=store,
            sink=self,
            clock=self._clock,
            terms=Terms.of(settings.host),
        )
        self.shard: Shard
        """There is one from `start` on."""

    async def start(self) -> None:
        """Serve; return once everything that this host can serve is served.

        Raises:
            StoreError: the store is not reachable, or not ours.
            ConfigInvalid: another running host has our id.
        """
        await self._store.open()
        try:
            hub = await self._store.create(self._settings.hub.partitions)
            self.partitions = hub.partitions
            self.shard = self._make_shard(hub.partitions)
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
        return _LocalVisitor(self, link)

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
        """Other hosts are not talked to from here, so far."""

    def drain(self, grace_s: float) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self.shard.drain(grace_s))

    # ---------------------------------------------------------------------------------------

    def _make_shard(self, partitions: int) -> Shard:
        def receive(message: Any) -> None:
            self.shard.receive(message)

        return Shard(
            settings=self._settings,
            app=self._app,
            store=self._store,
            clock=self._clock,
            network=Loopback(receive),
            owner=self.membership,
            partitions=partitions,
            name=self.membership.host.host_id,
            source=self._source,
        )

    async def _live(self) -> None:
        """Run shard and membership; if one fails, so does the other."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                shard = tasks.create_task(self.shard.run())
                await self.membership.run()
                shard.cancel()
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


class _LocalVisitor(Visitor):
    """A visitor that asks the host about the cluster, for there is no supervisor."""

    def __init__(self, host: EmbeddedHost, link: Link) -> None:
        super().__init__(host.shard, link)
        self._host = host
        self._link = link

    def on_messages(self, messages: list[Any]) -> None:
        others = [message for message in messages if not self._is_answered(message)]
        if others:
            super().on_messages(others)

    def _is_answered(self, message: Any) -> bool:
        if type(message) is not Ask:
            return False
        try:
            question = _decode_question(message.question)
        except msgspec.MsgspecError:
            return False  # the shard says what is wrong with it
        if isinstance(question, Cluster):
            facts: object = self._host.describe()
        elif isinstance(question, Metrics):
            facts = self._host.samples()
        else:
            return False
        self._link.send(Answer(message.seq, Raw(msgspec.json.encode(facts))))
        return True
