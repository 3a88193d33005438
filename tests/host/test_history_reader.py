"""Histories that are in memory, packed, or in the store while an instance goes on."""

import asyncio

from msgspec import Raw

from shardrt import App, OrchestrationContext, Runtime
from shardrt.core.entries import Stepped
from shardrt.core.work import Continued

app = App()


@app.orchestrator
async def listener(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


def test_a_packed_history_is_read_and_stored_like_any_other():
    async def main() -> None:
        patient = {"shard.checkpoint_interval_s": 1000}
        async with Runtime(app, store="memory://", partitions=1, settings=patient) as runtime:
            handle = await runtime.client.start(listener, instance_id="one")
            await handle.raise_event("go", "now")
            assert await handle.result() == "now"
            shard = runtime.host.shard
            (host,) = shard.hosts.values()
            instance = host.core.instances["one"]
            assert instance.tail == []
            chunk = host.history.packed(instance)
            assert chunk is not None
            assert chunk.seq == 0
            history = await handle.history()
            assert len(history) == instance.history_length
            await shard.checkpointer.checkpoint(host)
            assert host.history.packed(instance) is None
            assert await handle.history() == history

    asyncio.run(main())


def test_a_history_is_of_the_execution_that_was_current_when_it_was_asked_for():
    async def main() -> None:
        patient = {"shard.checkpoint_interval_s": 1000}
        async with Runtime(app, store="memory://", partitions=1, settings=patient) as runtime:
            handle = await runtime.client.start(listener, instance_id="one")
            shard = runtime.host.shard
            (host,) = shard.hosts.values()
            # It was acknowledged with its first turn.
            await shard.checkpointer.checkpoint(host)
            instance = host.core.instances["one"]
            assert instance.tail == []
            length = instance.history_length
            found: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            host.history.whole("one", found.set_result)
            # Before anything has been read.
            next_one = Continued(Raw(b"null"))
            host.core.apply(Stepped(shard.clock.now(), "one", 0, outcome=next_one))
            history = await found
            assert isinstance(history, list)
            assert len(history) == length
            await handle.terminate()

    asyncio.run(main())
