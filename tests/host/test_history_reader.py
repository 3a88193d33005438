"""Histories of instances that have ended, before and after a checkpoint has them."""

import asyncio

from shardrt import App, OrchestrationContext, Runtime

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
