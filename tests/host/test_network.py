"""Messages between the shards of one host."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shardrt.config import Tokens
from shardrt.host.keeping import keep_also_peers, keep_unix
from shardrt.host.network import Network
from shardrt.links.messages import Acknowledge, ToShard
from shardrt.links.unix import listen_unix
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardrt.links.base import Link
    from shardrt.links.messages import PartitionTraffic


class Shard:
    """Only the part of a shard that messages come to."""

    def __init__(self, socket: Path) -> None:
        self.socket = str(socket)
        self.received: list[PartitionTraffic] = []
        keep = keep_also_peers(keep_unix, Tokens(), 1000)
        self.network = Network(self.socket, self.received.append, keep=keep)

    def accept(self, link: Link) -> Shard:
        return self

    def on_messages(self, messages: list[PartitionTraffic]) -> None:
        self.received += messages

    def on_closed(self) -> None:
        pass


@asynccontextmanager
async def two_shards() -> AsyncIterator[tuple[Shard, Shard]]:
    """Two listening shards that know each other's routes: 0 owns partition 0, 1 owns 1."""
    with tempfile.TemporaryDirectory() as directory:
        shards = (Shard(Path(directory, "0")), Shard(Path(directory, "1")))
        servers = [await listen_unix(s.socket, ToShard, s.accept) for s in shards]
        tasks = [asyncio.create_task(s.network.run()) for s in shards]
        for shard in shards:
            shard.network.route([shards[0].socket, shards[1].socket, None, "http://elsewhere"])
        try:
            yield shards
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for server in servers:
                await server.close()


def test_a_message_to_a_partition_of_its_own_arrives_on_the_next_turn() -> None:
    async def main() -> None:
        async with two_shards() as (shard, _):
            shard.network.send(0, Acknowledge(0, 0, 7))
            assert shard.received == []
            await eventually(lambda: shard.received == [Acknowledge(0, 0, 7)])

    asyncio.run(main())


def test_messages_to_another_shard_arrive_in_order_once_there_is_a_link() -> None:
    async def main() -> None:
        async with two_shards() as (one, other):

            def arrives() -> bool:
                one.network.send(1, Acknowledge(0, 1, 1))  # lost until there is a link
                return bool(other.received)

            await eventually(arrives)
            one.network.send(1, Acknowledge(0, 1, 2))
            one.network.send(1, Acknowledge(0, 1, 3))
            await eventually(lambda: other.received[-2:] == [Acknowledge(0, 1, n) for n in (2, 3)])

    asyncio.run(main())


def test_what_has_no_route_is_dropped() -> None:
    async def main() -> None:
        async with two_shards() as (one, other):
            for partition in (2, 3, 99):
                one.network.send(partition, Acknowledge(0, partition, 1))
            one.network.send(0, Acknowledge(0, 0, 1))
            await eventually(lambda: one.received == [Acknowledge(0, 0, 1)])
            assert other.received == []

    asyncio.run(main())
