"""Requests that come twice at once, while what they concern has to be read from the store."""

from __future__ import annotations

import pytest

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import requests as r
from shardrt.core.history import Status
from shardrt.links.messages import Answer, Forward
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import run_virtual

app = App()
SETTINGS = Settings(shard=ShardSettings(checkpoint_interval_s=0.05))


@app.activity
async def fail() -> None:
    raise OSError("no")


@app.orchestrator
async def failing(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(fail)


@pytest.mark.parametrize("request_", [r.Rewind(), r.GetHistory()])
def test_a_rewind_that_comes_between_request_and_history_is_no_damage(request_: r.Request):
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1, settings=SETTINGS) as hub:
            client = HubClient(hub)
            await client.start("failing", None, "one")
            assert (await client.wait("one")).status is Status.FAILED
            await hub.until(lambda: (host := hub.host_of(0)) and not host.core.holds("one"))
            answers: list[Answer] = []
            for seq, request in enumerate((r.Rewind(), request_)):
                call = Forward(seq, 0, r.Origin("twice", 1, 1), "one", request)
                hub.members[0].shard.submit(call, answers.append)
            await hub.until(lambda: len(answers) == 2)
            assert [each.refusal for each in answers] == [None, None]
            assert hub.broken == []

    run_virtual(main())
