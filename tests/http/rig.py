"""A gateway between stand-ins for shards and a client, in one loop."""

import asyncio
from typing import Any, Self

import msgspec
from msgspec import Raw

from shardrt.core import requests as r
from shardrt.host.keeping import keep_in_process
from shardrt.http.gateway import Gateway
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Answer, Call, Hello, Welcome
from tests.fake_shard import FakeShard
from tests.links.ends import End

PARTITIONS = 4
WELCOME = Welcome(1, "0", PARTITIONS, "host", 1000)
GET = Raw(b'["get"]')
START = Raw(msgspec.json.encode(r.Start("hello", fresh=True)))


class Rig:
    """A gateway, shards by address, and one client, all in one loop."""

    def __init__(self, **options: Any) -> None:
        self.shards = {"one": FakeShard(), "two": FakeShard()}
        accepts = {name: shard.accept for name, shard in self.shards.items()}
        self.gateway = Gateway(WELCOME, keep=keep_in_process(accepts), **options)
        self.client = self.new_client()

    @property
    def one(self) -> FakeShard:
        return self.shards["one"]

    @property
    def two(self) -> FakeShard:
        return self.shards["two"]

    def new_client(self, session_id: str = "c" * 32) -> End:
        end = End()
        connect_in_process(end.accept, self.gateway.accept)
        end.link.send(Hello(session_id))
        return end

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.gateway.run())
        self.gateway.set_routes(["one"] * PARTITIONS)
        await self.one.until(lambda: len(self.one.links) == 1)
        await self.client.until(lambda: self.client.messages == [WELCOME])
        self.client.messages.clear()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def call(self, seq: int, request: Raw = START, instance_id: str = "a", low: int = 1) -> None:
        self.client.link.send(Call(seq, low, instance_id, request))

    def execute(self, seq: int, instance_id: str, client: End | None = None) -> None:
        call = Call(seq, 1, instance_id, START, wants_end=True)
        (client or self.client).link.send(call)

    async def answers(self, count: int) -> list[Answer]:
        await self.client.until(lambda: len(self.client.messages) >= count)
        return self.client.messages

    async def refusal(self, count: int = 1) -> r.Refusal:
        answer = (await self.answers(count))[count - 1]
        assert answer.refusal is not None
        return answer.refusal
