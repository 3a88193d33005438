"""Purged instances are gone, and stay gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardrt.core import history as h, requests as r
from shardrt.testing.virtual import pass_time
from tests.host.test_eviction import evicted, play
from tests.host.test_ownership import ask
from tests.host.witness import assert_history

if TYPE_CHECKING:
    from shardrt.testing.client import HubClient
    from shardrt.testing.hub import Hub


@pytest.mark.parametrize("interval_s", [0.05, 5.0])
def test_a_purged_instance_is_gone_and_its_id_is_free(interval_s: float):
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("quick", "a", "one")
        await client.result("one")
        await pass_time(interval_s)
        assert await client.purge("one") == 1
        assert await client.get("one") is None
        assert await client.history("one") is None
        assert await client.purge("one") == 0
        await client.start("quick", "b", "one")
        assert await client.result("one") == "b"
        await pass_time(3 * interval_s)
        events = await assert_history(client, "one")
        assert [type(each).__name__ for each in events] == [
            "ExecutionStarted",
            "OrchestratorStarted",
            "ExecutionCompleted",
        ]

    play(main, interval_s=interval_s)


def test_a_row_that_is_read_while_it_is_deleted_does_not_come_back():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("quick", "a", "one!0")
        await client.result("one!0")
        await evicted(hub)
        hub.calls.held.add("checkpoint")
        assert await client.purge("one!0") == 1
        hub.calls.held_answers.add("load")
        answers = ask(hub, 0, "one!0", r.Get())
        await pass_time(0.1)
        hub.calls.held.clear()
        await pass_time(0.3)
        assert hub.store._hub.partitions[0].instances == {}
        hub.calls.held_answers.clear()
        await pass_time(0.1)
        assert answers[0].result == h.NULL
        assert await client.get("one!0") is None

    play(main)


def test_a_purge_is_not_told_before_it_is_durable():
    async def main(hub: Hub, client: HubClient) -> None:
        await client.start("quick", "a", "one!0")
        await client.result("one!0")
        await hub.quiet()
        hub.calls.held.add("append")
        purge = ask(hub, 0, "one!0", r.Purge())
        await pass_time(0.02)
        reads = [ask(hub, 0, "one!0", r.Get()), ask(hub, 0, "one!0", r.GetHistory())]
        await pass_time(0.5)
        assert [purge, *reads] == [[], [], []]
        hub.calls.held.clear()
        await pass_time(0.1)
        assert [each[0].result for each in reads] == [h.NULL, h.NULL]

    play(main)
