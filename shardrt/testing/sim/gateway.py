"""The way in: a real gateway and its router, whose links are simulated wires."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt import __version__
from shardrt.cluster.routing import STRANDED_S
from shardrt.host.keeping import Decoding
from shardrt.http.gateway import Gateway
from shardrt.links import control
from shardrt.links.messages import PROTOCOL, ForwardRaw, Welcome
from shardrt.links.peer import Ending

if TYPE_CHECKING:
    from shardrt.links.base import Accept, LinkHandler
    from shardrt.testing.sim.children import SimChild, SimParent
    from shardrt.testing.sim.network import End

REDIAL_S = 0.05
PAYLOAD_BYTES_MAX = 1 << 22


class SimGateway:
    """One gateway process."""

    def __init__(self, child: SimChild, parent: SimParent) -> None:
        self.child = child
        self.cluster = child.machine.cluster
        self._parent = parent
        self._version = 0
        machine = child.machine
        partitions = self.cluster.partitions
        self._gateway = Gateway(
            Welcome(PROTOCOL, __version__, partitions, machine.name, PAYLOAD_BYTES_MAX),
            keep=self._keep,
            look=lambda: parent.send(control.Stale(self._version)),
            nudged=lambda: parent.send(control.Nudged()),
            stranded_s_max=machine.settings.host.lease_ttl_s + STRANDED_S,
        )

    async def run(self) -> None:
        """Serve until told to stop, and what is under way is answered."""
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(self._parent.beat()),
                tasks.create_task(self._gateway.run()),
            ]
            self._parent.send(control.Ready(self.child.pid))
            grace_s = await self._obey()
            draining = tasks.create_task(self._gateway.drain(grace_s))
            obeying = tasks.create_task(self._obey())
            await draining
            for part in [*parts, obeying]:
                part.cancel()

    async def _obey(self) -> float:
        """Follow orders until the one to stop; return its grace."""
        while True:
            match await self._parent.receive():
                case control.Stop(grace_s):
                    return grace_s
                case control.Routes(version, targets, owner, era):
                    self._version = version
                    self._gateway.set_routes(targets, owner, era)
                case control.Nudge(targets):
                    self._gateway.router.nudge(targets)
                case control.Leave():
                    self._gateway.leaving = True
                case other:
                    raise AssertionError(f"{other!r} is not for gateways")

    def accept(self, link: End, session_id: str, *, wants_serving: bool) -> LinkHandler:
        """Let a client in."""
        if wants_serving:
            self._gateway.announcer.join(link)
        return self._gateway.accept_typed(link, session_id)

    def accept_peer(self, link: End) -> LinkHandler:
        """Let another gateway in."""
        return self._gateway.accept_peer(link)

    def is_owner(self, target: str) -> bool:
        """Whether a target means this very incarnation of the host."""
        return target.partition("#")[2] == self._gateway.owner

    async def _keep(self, target: str, accept: Accept) -> None:
        """Keep a wire to a shard of this machine, or to the gateway of another."""
        network, process = self.cluster.network, self.child.process
        here, there = self.child.machine.name, self.cluster.place_of(target)
        while True:
            await asyncio.sleep(REDIAL_S + network.delay_s(here, there))
            far = self.cluster.listener_at(target)
            if far is None or network.is_cut(here, there):
                continue
            is_shard = far.configure.role == "shard"
            if not is_shard and not far.gateway.is_owner(target):
                continue
            near_end, far_end = network.connect(process, far.process)
            visitor = Decoding(far.visit(far_end)) if is_shard else far.gateway.accept_peer(far_end)
            far_end.handler = visitor
            ended = asyncio.Event()
            near_end.handler = Ending(accept(_Repeating(self, near_end)), ended)
            try:
                await ended.wait()
            finally:
                near_end.close()


class _Repeating:
    """An end of a wire that sends some calls twice: what is answered second nobody hears."""

    def __init__(self, gateway: SimGateway, end: End) -> None:
        self._gateway = gateway
        self._end = end
        self.close = end.close

    @property
    def is_open(self) -> bool:
        return self._end.is_open

    @property
    def is_congested(self) -> bool:
        return False

    def send(self, message: Any) -> None:
        self._end.send(message)
        cluster = self._gateway.cluster
        weather, random = cluster.network.weather, cluster.random
        is_call = isinstance(message, ForwardRaw)
        if is_call and weather.repetition and random.random() < weather.repetition:
            delay_s = random.random() * weather.straggle_s
            self._gateway.child.process.after(delay_s, self._end.send, message)
