"""The way in: takes clients' calls to shards of its machine, or to other machines' gateways.

It does what `http.gateway` does, by simpler means: a call is kept until it is answered, sent on
to wherever its partition is served next, and refused when nobody serves it for too long. What
comes from another gateway goes to a shard of this machine, or back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.client.wire import TypedCall
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.links import control
from shardrt.links.messages import Answer, Forward

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.links.base import LinkHandler
    from shardrt.testing.sim.children import SimChild, SimParent
    from shardrt.testing.sim.network import End

STRANDED_S_MAX = 5.0
NOBODY = r.Refusal("PartitionUnavailable", "nobody serves this partition just now", 0.1)


@dataclass(slots=True)
class _Call:
    """A call under way."""

    forward: Forward
    answer: Callable[[Answer], None]
    is_local: bool
    """From another gateway: not to be passed on to a third."""
    target: str | None = None
    since_s: float = 0.0


@dataclass(slots=True)
class _Upstream:
    """The wire to a shard, or to another gateway."""

    link: End
    gateway: SimGateway
    target: str
    calls: set[int] = field(default_factory=set)

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            self.gateway.answered(message)

    def on_closed(self) -> None:
        self.gateway.lost(self)


class SimGateway:
    """One gateway process."""

    def __init__(self, child: SimChild) -> None:
        self.child = child
        self.cluster = child.machine.cluster
        self._targets: list[str | None] = []
        self._upstreams: dict[str, _Upstream] = {}
        self._calls: dict[int, _Call] = {}
        self._seq = 0

    async def run(self, parent: SimParent) -> None:
        """Serve until told to stop."""
        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(parent.beat()), tasks.create_task(self._sweep())]
            parent.send(control.Ready(self.child.pid))
            while True:
                message = await parent.receive()
                if isinstance(message, control.Stop):
                    break
                if isinstance(message, control.Routes):
                    self._route(message.targets)
            for part in parts:
                part.cancel()

    def accept(self, link: End, session_id: str) -> LinkHandler:
        """Let a client in."""
        return _Client(self, link, session_id)

    def accept_peer(self, link: End) -> LinkHandler:
        """Let another gateway in."""
        return _Peer(self, link)

    def take(self, forward: Forward, answer: Callable[[Answer], None], *, is_local: bool) -> None:
        """Take a call to its partition."""
        self._send(_Call(forward, answer, is_local))

    # -- upstream ------------------------------------------------------------------------------

    def _send(self, call: _Call) -> None:
        self._seq = seq = self._seq + 1
        call.forward = msgspec.structs.replace(call.forward, seq=seq)
        partition = call.forward.partition
        target = self._target(partition)
        if call.is_local and target is not None and "://" in target:
            target = None
        upstream = None if target is None else self._upstream(target)
        if upstream is None:
            if call.is_local:
                call.answer(Answer(seq, refusal=NOBODY))
                return
            call.target, call.since_s = None, self.cluster.loop.time()
            self._calls[seq] = call
            return
        call.target = target
        self._calls[seq] = call
        upstream.calls.add(seq)
        upstream.link.send(call.forward)
        self._repeat(upstream, call.forward)

    def _repeat(self, upstream: _Upstream, forward: Forward) -> None:
        """Send it twice: whatever answers second has nobody to hear it."""
        weather, random = self.cluster.network.weather, self.cluster.random
        if weather.repetition and random.random() < weather.repetition:
            delay_s = random.random() * weather.straggle_s
            self.child.process.after(delay_s, upstream.link.send, forward)

    def _target(self, partition: int) -> str | None:
        return self._targets[partition] if partition < len(self._targets) else None

    def _upstream(self, target: str) -> _Upstream | None:
        upstream = self._upstreams.get(target)
        if upstream is not None:
            return upstream
        far = self.cluster.listener_at(target)
        network = self.cluster.network
        mine = self.child.machine.name
        if far is None or network.is_cut(mine, far.machine.name):
            return None
        near_end, far_end = network.connect(self.child.process, far.process)
        upstream = self._upstreams[target] = _Upstream(near_end, self, target)
        near_end.handler = upstream
        is_shard = far.configure.role == "shard"
        far_end.handler = far.visit(far_end) if is_shard else far.gateway.accept_peer(far_end)
        return upstream

    def answered(self, answer: Answer) -> None:
        """Pass an answer back."""
        call = self._calls.pop(answer.seq, None)
        if call is not None:
            if call.target is not None and (upstream := self._upstreams.get(call.target)):
                upstream.calls.discard(answer.seq)
            call.answer(answer)

    def lost(self, upstream: _Upstream) -> None:
        """Send elsewhere what a link that broke leaves open."""
        if self._upstreams.get(upstream.target) is upstream:
            del self._upstreams[upstream.target]
        self._resend(sorted(upstream.calls))

    def _route(self, targets: list[str | None]) -> None:
        self._targets = targets
        moved = [
            seq
            for seq, call in self._calls.items()
            if (target := self._target(call.forward.partition)) and target != call.target
        ]
        self._resend(moved)

    def _resend(self, seqs: list[int]) -> None:
        for seq in seqs:
            call = self._calls.pop(seq, None)
            if call is None:
                continue
            if call.target is not None and (old := self._upstreams.get(call.target)):
                old.calls.discard(seq)
            self._send(call)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            since_s = self.cluster.loop.time() - STRANDED_S_MAX
            stranded = [seq for seq, call in self._calls.items() if call.target is None]
            for seq in stranded:
                if self._calls[seq].since_s <= since_s:
                    self._calls.pop(seq).answer(Answer(seq, refusal=NOBODY))
                else:
                    call = self._calls[seq]
                    target = self._target(call.forward.partition)
                    if target is not None and self._upstream(target) is not None:
                        self._resend([seq])


class _Client:
    """A client at the other end of a wire."""

    def __init__(self, gateway: SimGateway, link: End, session_id: str) -> None:
        self._gateway = gateway
        self._link = link
        self._session_id = session_id

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, TypedCall):
                self._take(message)

    def _take(self, call: TypedCall) -> None:
        partition = partition_of(call.instance_id, self._gateway.cluster.partitions)
        origin = r.Origin(self._session_id, call.seq, call.low)
        forward = Forward(0, partition, origin, call.instance_id, call.request)

        def answer(result: Answer) -> None:
            self._link.send(msgspec.structs.replace(result, seq=call.seq))

        self._gateway.take(forward, answer, is_local=False)

    def on_closed(self) -> None:
        """What it asked for is answered to nobody."""


class _Peer:
    """Another gateway at the other end of a wire."""

    def __init__(self, gateway: SimGateway, link: End) -> None:
        self._gateway = gateway
        self._link = link

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            self._take(message)

    def _take(self, forward: Forward) -> None:
        def answer(result: Answer) -> None:
            self._link.send(msgspec.structs.replace(result, seq=forward.seq))

        self._gateway.take(forward, answer, is_local=True)

    def on_closed(self) -> None:
        """What it asked for is answered to nobody."""
