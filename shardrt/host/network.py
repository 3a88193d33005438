"""Messages between partitions: to this shard itself, or to another shard of this host.

A shard dials the Unix sockets of the others as `Routes` names them and keeps those links. What
has no route, or a link that is down, is dropped: senders keep a message until it is
acknowledged, and send it again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.links.messages import FromShard, PartitionTraffic
from shardrt.links.unix import Dialer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.links.base import Link


class Loopback:
    """Carries messages between partitions of one shard, on the loop's next turn."""

    def __init__(self, receive: Callable[[PartitionTraffic], None]) -> None:
        self._receive = receive
        self._held: list[PartitionTraffic] = []

    def send(self, partition: int, message: PartitionTraffic) -> None:  # noqa: ARG002 - all ours
        self._held.append(message)
        if len(self._held) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        messages, self._held = self._held, []
        for message in messages:
            self._receive(message)


class UnixNetwork:
    """`host.ports.Network` among the shards of one host. Run `run` as a task."""

    def __init__(self, socket: str, receive: Callable[[PartitionTraffic], None]) -> None:
        self._socket = socket
        self._loopback = Loopback(receive)
        self._targets: Sequence[str | None] = ()
        self._peers: dict[str, _Peer] = {}
        self._routed = asyncio.Event()

    def route(self, targets: Sequence[str | None]) -> None:
        """Adopt new routes: a socket path per partition (a URL is another host's)."""
        self._targets = targets
        self._routed.set()

    def send(self, partition: int, message: PartitionTraffic) -> None:
        target = self._targets[partition] if partition < len(self._targets) else None
        if target == self._socket:
            self._loopback.send(partition, message)
        elif target is not None and (peer := self._peers.get(target)) is not None:
            peer.send(message)

    async def run(self) -> None:
        """Keep links to all shards that routes name, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._routed.wait()
                self._routed.clear()
                sockets = {t for t in self._targets if t is not None and t.startswith("/")}
                for path in sockets - self._peers.keys() - {self._socket}:
                    self._peers[path] = _Peer()
                    dialer = Dialer(path, FromShard, self._peers[path].accept)
                    tasks.create_task(dialer.run())


class _Peer:
    """The link to another shard, while there is one."""

    def __init__(self) -> None:
        self._link: Link | None = None

    def send(self, message: PartitionTraffic) -> None:
        if self._link is not None:
            self._link.send(message)

    def accept(self, link: Link) -> _Peer:
        self._link = link
        return self

    def on_messages(self, messages: list[Any]) -> None:
        """Shards answer nothing on these links."""

    def on_closed(self) -> None:
        self._link = None
