"""Messages between partitions: to this shard itself, to another shard, or to another host.

A shard keeps links to the other shards of its host, and to the gateways of other hosts once it
has something for a partition there. What has no route, or a link that is down, is dropped:
senders keep a message until it is acknowledged, and send it again, at once when there is a
new way to its destination.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.cluster.looks import Looks
from shardrt.cluster.upstream import is_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.cluster.upstream import Keep
    from shardrt.links.base import Link
    from shardrt.links.messages import PartitionTraffic


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


class Network:
    """`host.ports.Network` of one shard among all others of the hub. Run `run` as a task.

    Args:
        here: the target that stands for this shard in routes.
        receive: takes what is for this shard.
        keep: how links are made.
        reached: called with the partitions to which there is a new way.
        look: called when there is none, now and then.
    """

    def __init__(
        self,
        here: str,
        receive: Callable[[PartitionTraffic], None],
        *,
        keep: Keep,
        reached: Callable[[set[int]], None] = lambda _: None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._here = here
        self._loopback = Loopback(receive)
        self._keep = keep
        self._reached = reached
        self._looks = Looks(look)
        self._targets: Sequence[str | None] = ()
        self._peers: dict[str, _Peer] = {}
        self._changed = asyncio.Event()

    def route(self, targets: Sequence[str | None]) -> None:
        """Adopt new routes: a target per partition (see `links.control.Routes`)."""
        before, self._targets = self._targets, targets
        for target in set(targets) - self._peers.keys() - {None, self._here}:
            assert target is not None
            self._peers[target] = _Peer(target, self._on_opened)
        self._changed.set()
        changed = {
            partition
            for partition, target in enumerate(targets)
            if target is not None and (partition >= len(before) or target != before[partition])
        }
        if changed:
            self._looks.changed()
            self._reached(changed)

    def send(self, partition: int, message: PartitionTraffic) -> None:
        target = self._targets[partition] if partition < len(self._targets) else None
        if target == self._here:
            self._loopback.send(partition, message)
        elif target is None:
            self._looks.complain()
        elif not self._peers[target].send(message):
            self._changed.set()

    async def run(self) -> None:
        """Keep links as they are needed, until cancelled."""
        kept: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changed.wait()
                self._changed.clear()
                for target, peer in self._peers.items():
                    if peer.is_wanted and target not in kept:
                        kept[target] = tasks.create_task(self._keep(target, peer.accept))
                for target in self._peers.keys() - set(self._targets):
                    del self._peers[target]
                    if (task := kept.pop(target, None)) is not None:
                        task.cancel()

    def _on_opened(self, target: str) -> None:
        routes = enumerate(self._targets)
        # Only when the handler is in place may anything be sent.
        reached = {partition for partition, route in routes if route == target}
        asyncio.get_running_loop().call_soon(self._reached, reached)


class _Peer:
    """The link to another shard or host, while there is one."""

    def __init__(self, target: str, on_opened: Callable[[str], None]) -> None:
        self.is_wanted = not is_peer(target)
        """Whether there shall be a link: to another host only once there is something for it."""
        self._target = target
        self._on_opened = on_opened
        self._link: Link | None = None

    def send(self, message: PartitionTraffic) -> bool:
        """Send, or drop; return False if a link is wanted that was not before."""
        if self._link is not None:
            self._link.send(message)
        elif not self.is_wanted:
            self.is_wanted = True
            return False
        return True

    def accept(self, link: Link) -> _Peer:
        self._link = link
        self._on_opened(self._target)
        return self

    def on_messages(self, messages: list[Any]) -> None:
        """Nobody answers anything on these links."""

    def on_closed(self) -> None:
        self._link = None
