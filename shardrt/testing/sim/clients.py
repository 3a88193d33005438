"""Clients: real sessions over simulated wires, and what they note of their answers."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt import __version__
from shardrt.client.results import decode_result
from shardrt.client.session import Session
from shardrt.core import entries as e, requests as r
from shardrt.core.codec import decode_history
from shardrt.errors import ConnectionLost, StoreUnavailable
from shardrt.links.backoff import Backoff
from shardrt.links.messages import PROTOCOL, Welcome
from shardrt.testing.sim.network import LOCAL_S

if TYPE_CHECKING:
    from shardrt.core.history import HistoryEvent
    from shardrt.links.base import Link, LinkHandler
    from shardrt.testing.sim.cluster import Cluster
    from shardrt.testing.sim.machines import Machine

PATIENCE_S = 10_000.0
"""A client asks for as long as the simulation lasts."""

_ENTRY_OF: dict[type, tuple[type, ...]] = {
    r.Start: (e.Created,),
    r.Restart: (e.Created,),
    r.Raise: (e.Raised,),
    r.Terminate: (e.Terminated,),
    r.Rewind: (e.Rewound,),
    r.SignalEntity: (e.EntityAsked,),
    r.CallEntity: (e.EntityAsked,),
}
"""What an acknowledged request must have left in the journal."""


class SimClient:
    """One client program: a session that goes to any host, or has lines to some of them."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.process = cluster.loop.process(name, "clients")
        self.random = Random(f"{name} {cluster.random.random()}")  # noqa: S311
        self.acknowledged = 0
        self._session: Session

    async def open(self) -> None:
        """Connect, for however long that takes."""

        def backoff() -> Backoff:
            return Backoff(rng=self.random)

        machines = self.cluster.machines
        known = self.random.sample(machines, self.random.randint(1, len(machines)))
        dials = [partial(self._dial, each) for each in known] if known[1:] else [self._dial_any]
        self._session = Session(*dials, call_timeout_s=PATIENCE_S, backoff=backoff)
        self._session.id = self.name
        await self._session.open(PATIENCE_S)

    async def _dial_any(self, session_id: str, handler: LinkHandler) -> tuple[Link, Welcome]:
        machine = self.random.choice(self.cluster.machines)
        return await self._dial(machine, session_id, handler, wants_serving=False)

    async def _dial(
        self, machine: Machine, session_id: str, handler: LinkHandler, *, wants_serving: bool = True
    ) -> tuple[Link, Welcome]:
        network = self.cluster.network
        await asyncio.sleep(LOCAL_S + network.delay_s("clients", machine.name))
        gateway = self.cluster.listener_at(f"http://{machine.name}")
        if gateway is None or network.is_cut("clients", machine.name):
            raise ConnectionLost(f"{machine.name} cannot be reached")
        near, far = network.connect(self.process, gateway.process)
        near.handler = handler
        far.handler = gateway.gateway.accept(far, session_id, wants_serving=wants_serving)
        partitions = self.cluster.partitions
        return near, Welcome(PROTOCOL, __version__, partitions, machine.name, 1 << 22)

    # -- asking ----------------------------------------------------------------------------------

    async def ask(self, instance_id: str, request: r.Request) -> Any:
        """Ask until there is an answer, and have it judged. Raises `ShardrtError`."""
        loop, ledger = self.cluster.loop, self.cluster.ledger
        since_s = loop.time()
        answer = self._session.submit(instance_id, request)
        seq = self._session._seq  # noqa: SLF001 - the number that it has just given
        result = decode_result(request, await answer)
        name = type(request).__name__
        self.cluster.note("answer", self.name, seq, name, instance_id)
        self.acknowledged += 1
        if isinstance(request, (r.Get, r.Wait)):
            assert result is None or isinstance(result, r.Snapshot)
            ledger.check_read(instance_id, result, since_s)
        elif not _was_there(result):
            self._judge_applied(seq, instance_id, request)
        return result

    async def wait(self, instance_id: str) -> r.Snapshot:
        """Return the instance once it has ended."""
        since_s = self.cluster.loop.time()
        snapshot = await self._session.wait(instance_id)
        self.cluster.note("answer", self.name, "Wait", instance_id, str(snapshot.status))
        self._judge_end(instance_id, snapshot, since_s)
        return snapshot

    async def execute(
        self, name: str, value: object, instance_id: str, **options: Any
    ) -> r.Snapshot:
        """Start an instance that is not there, and return it once it has ended."""
        since_s = self.cluster.loop.time()
        start = r.Start(name, Raw(msgspec.json.encode(value)), **options)
        self.cluster.started.append(instance_id)
        seq = self._session._seq + 1  # noqa: SLF001 - the number that it gives next
        snapshot = await self._session.execute(instance_id, start)
        self.cluster.note("end", self.name, seq, instance_id, str(snapshot.status))
        self.acknowledged += 1
        self._judge_applied(seq, instance_id, start)
        self._judge_end(instance_id, snapshot, since_s)
        return snapshot

    def _judge_applied(self, seq: int, instance_id: str, request: r.Request) -> None:
        kinds = _ENTRY_OF.get(type(request))
        entry = self.cluster.ledger.applied.get((self.name, seq))
        if kinds and not isinstance(entry, kinds):
            name = type(request).__name__
            text = f"{name} of {instance_id} was acknowledged, and is {entry}"
            self.cluster.ledger.violated("I1", text)

    def _judge_end(self, instance_id: str, snapshot: r.Snapshot, since_s: float) -> None:
        self.cluster.ledger.check_read(instance_id, snapshot, since_s)
        if not snapshot.status.is_final:
            self.cluster.ledger.violated("I1", f"{instance_id} has not ended")

    async def start(self, name: str, value: object, instance_id: str, **options: Any) -> r.Started:
        """Start an instance."""
        payload = Raw(msgspec.json.encode(value))
        self.cluster.started.append(instance_id)
        result = await self.ask(instance_id, r.Start(name, payload, **options))
        assert isinstance(result, r.Started)
        return result

    async def raise_event(self, instance_id: str, name: str, data: object) -> None:
        await self.ask(instance_id, r.Raise(name, Raw(msgspec.json.encode(data))))

    async def get(self, instance_id: str) -> r.Snapshot | None:
        found: r.Snapshot | None = await self.ask(instance_id, r.Get())
        return found

    async def history(self, instance_id: str) -> list[HistoryEvent] | None:
        while True:
            try:
                result = await self.ask(instance_id, r.GetHistory())
            except StoreUnavailable:  # it is a read: the caller decides whether to try again
                await asyncio.sleep(0.5)
            else:
                return None if result is None else decode_history(bytes(result))


def _was_there(result: object) -> bool:
    return isinstance(result, r.Started) and not result.created
