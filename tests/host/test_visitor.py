"""What a shard keeps for who talks to it, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

from shardrt import App, OrchestrationContext, Runtime
from shardrt.core.ids import partition_of
from shardrt.core.requests import Origin, Wait
from shardrt.links.messages import Forget, Forward

app = App()


@app.orchestrator
async def waits(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_event("go")


class Wire:
    """The shard's end of a link that leads nowhere."""

    is_open = True
    is_congested = False

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def close(self) -> None:
        """Nothing to end."""


def waiting(runtime: Runtime, instance_id: str) -> int:
    partition = partition_of(instance_id, runtime.host.partitions)
    waiters = runtime.host.shard.hosts[partition].core.waiters
    return len(waiters.get(instance_id, []))


def wait(runtime: Runtime, seq: int, instance_id: str) -> Forward:
    partition = partition_of(instance_id, runtime.host.partitions)
    return Forward(seq, partition, Origin("client", seq, 1), instance_id, Wait())


def test_waits_are_dropped_when_nobody_waits_any_more() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            await runtime.client.start(waits, instance_id="one")
            one, two = Wire(), Wire()
            visitors = [runtime.host.accept(one), runtime.host.accept(two)]
            visitors[0].on_messages([wait(runtime, seq, "one") for seq in (1, 2, 3)])
            visitors[1].on_messages([wait(runtime, 1, "one")])
            assert waiting(runtime, "one") == 4
            visitors[0].on_messages([Forget((1, 3, 9))])
            assert waiting(runtime, "one") == 2
            visitors[1].on_closed()
            assert waiting(runtime, "one") == 1
            await runtime.client.raise_event("one", "go")
            await asyncio.wait_for(runtime.client.handle("one").result(), 10)
            assert [answer.seq for answer in one.sent] == [2]
            assert two.sent == []

    asyncio.run(main())
