"""A shard as a child process: ``python -m shardrt.host.process``, started by a supervisor.

It imports the user's app, opens its own store connections, listens on its Unix socket, and
then does what the supervisor says: host these partitions, until this time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from shardrt import __version__
from shardrt.config import Settings
from shardrt.errors import ConfigInvalid, StoreUnavailable
from shardrt.host.black_box import SUFFIX, BlackBox
from shardrt.host.child import FatalStart, Parent, run_child
from shardrt.host.clock import HubClock
from shardrt.host.condemning import forbid
from shardrt.host.imports import import_app
from shardrt.host.keeping import keep_also_peers, keep_unix
from shardrt.host.memory import settle_memory
from shardrt.host.network import Network
from shardrt.host.shard import Shard
from shardrt.host.visitor import Visitor
from shardrt.host.worker_pool import AppSource
from shardrt.links import control
from shardrt.links.shard_codec import ShardCodec
from shardrt.links.unix import listen_unix
from shardrt.store.factory import make_store
from shardrt.tracing.providing import make_tracer, provide

if TYPE_CHECKING:
    from shardrt.links.base import Link
    from shardrt.links.messages import Acknowledge, Deliver, Resend
    from shardrt.store.base import Store

logger = logging.getLogger(__name__)

STORE_CONNECTIONS = 2
STORE_RETRY_S = 1.0


class ShardProcess:
    """The shard of this process, and the supervisor's orders to it. Implements `Owner`."""

    def __init__(self, parent: Parent, configure: control.Configure, store: Store) -> None:
        settings = msgspec.convert(configure.settings, Settings)
        self._parent = parent
        self._socket = configure.socket
        self._clock = HubClock()
        self._version = 0
        """Of the routes."""
        self._network = Network(
            configure.socket,
            self._receive,
            keep=keep_also_peers(
                keep_unix,
                settings.tokens(),
                settings.limits.payload_bytes_max,
                settings.host.tls_ca,
            ),
            reached=self._reached,
            look=lambda: parent.send(control.Stale(self._version)),
        )
        app = import_app(configure.app)
        # After it: the app may have set up tracing by itself.
        provide(settings.tracing, f"shard-{configure.index}", configure.host_id)
        self._shard = Shard(
            settings=settings,
            app=app,
            store=store,
            clock=self._clock,
            network=self._network,
            owner=self,
            partitions=configure.partitions,
            name=configure.host_id,
            index=configure.index,
            source=AppSource(configure.app, configure.import_paths),
            box=BlackBox(Path(configure.socket + SUFFIX)),
            tracer=make_tracer(settings.tracing, __version__),
        )
        self._shard.turns.on_pardon = lambda code: parent.send(control.Pardoned(*code))

    async def run(self) -> None:
        """Work until the supervisor says stop, and everything is drained."""
        server = await listen_unix(self._socket, ShardCodec(), self._accept)
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [
                    tasks.create_task(self._shard.run()),
                    tasks.create_task(self._network.run()),
                    tasks.create_task(self._parent.beat(self._beat)),
                ]
                settle_memory()
                self._parent.send(control.Ready(os.getpid()))
                await self._obey()
                for part in parts:
                    part.cancel()
        finally:
            await server.close()

    async def _obey(self) -> None:
        while True:
            message = await self._parent.receive()
            if isinstance(message, control.Stop):
                await self._drain(message.grace_s)
                return
            self._on_order(message)

    async def _drain(self, grace_s: float) -> None:
        """Drain, while the lease goes on being renewed."""
        async with asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(self._shard.drain(grace_s))
            orders = tasks.create_task(self._obey_while_draining())
            await drain
            orders.cancel()

    async def _obey_while_draining(self) -> None:
        while True:
            message = await self._parent.receive()
            if not isinstance(message, control.Stop):
                self._on_order(message)

    def _on_order(self, message: control.ToChild) -> None:
        match message:
            case control.Assign():
                if message.watch:
                    self._shard.watch()
                self._shard.assign(message.partition, message.epoch, message.blamed)
            case control.Forbid():
                forbid(self._shard, message.orchestrators)
            case control.Revoke():
                self._shard.revoke(message.partition)
            case control.Discard():
                self._shard.discard(message.partition)
                self.released(message.partition, message.epoch)
            case control.Lease():
                self._clock.correct(message.clock_offset)
                self._shard.extend_lease(message.until_s)
            case control.Routes():
                self._version = message.version
                self._network.route(message.targets)
            case (
                control.Configure()
                | control.Stop()
                | control.ClusterView()
                | control.Nudge()
                | control.Leave()
            ):
                logger.error("unexpected order %s", type(message).__name__)
            case _:
                assert_never(message)

    # -- host.ports.Owner -------------------------------------------------------------------

    def opened(self, partition: int, epoch: int) -> None:
        self._parent.send(control.Opened(partition, epoch))

    def released(self, partition: int, epoch: int) -> None:
        self._parent.send(control.Released(partition, epoch))

    def lost(self, partition: int, epoch: int, broken: str) -> None:
        self._parent.send(control.Lost(partition, epoch, broken))

    # ---------------------------------------------------------------------------------------

    def _accept(self, link: Link) -> Visitor:
        return Visitor(self._shard, link)

    def _receive(self, message: Deliver | Acknowledge | Resend) -> None:
        self._shard.receive(message)

    def _reached(self, partitions: set[int]) -> None:
        self._shard.reached(partitions)

    def _beat(self) -> control.Beat:
        return control.Beat(
            progress=self._shard.progress(),
            counters=self._shard.counters(),
            samples=self._shard.samples(),
            running=self._shard.running(),
            quarantined=self._shard.quarantined(),
        )


async def serve(parent: Parent, configure: control.Configure) -> None:
    """Be the shard that `configure` describes."""
    settings = msgspec.convert(configure.settings, Settings)
    sys.path[:0] = [path for path in configure.import_paths if path not in sys.path]
    store = make_store(
        settings.store.url, connections=STORE_CONNECTIONS, unsafe=settings.store.unsafe
    )
    try:
        process = ShardProcess(parent, configure, store)
    except ConfigInvalid as error:
        raise FatalStart(str(error)) from None
    await _open(store)
    try:
        await process.run()
    finally:
        await store.close()


async def _open(store: Store) -> None:
    """Open the store as soon as it can be reached: a restart may fall into an outage of it."""
    while True:
        try:
            await store.open()
        except StoreUnavailable as error:
            logger.warning("store not reachable, trying again: %s", error)
            await asyncio.sleep(STORE_RETRY_S)
        else:
            return


if __name__ == "__main__":
    run_child(serve)
