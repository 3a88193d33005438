"""What a checkpoint does when its store has something against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual

if TYPE_CHECKING:
    from shardrt.store.base import Checkpoint

app = App()


@app.orchestrator
async def listener(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


def test_what_no_store_can_write_stops_its_own_partition_only():
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            client = HubClient(hub)
            store = hub.members[0].store._store
            write = store.checkpoint

            async def checkpoint(checkpoint: Checkpoint) -> None:
                if checkpoint.partition == 0 and checkpoint.upserts:
                    raise OverflowError("a number that fits no column")
                await write(checkpoint)

            store.checkpoint = checkpoint  # type: ignore[method-assign]
            await client.start("listener", None, "good!1")
            await client.start("listener", None, "bad!0")
            await pass_time(5.0)
            assert set(hub.broken) == {"OverflowError: a number that fits no column"}
            assert hub.crashes == 0
            await client.raise_event("good!1", "go", "on")
            assert await client.result("good!1") == "on"

    run_virtual(main())
