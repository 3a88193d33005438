"""Partitions of two histories of one store, as after a fail-over that lost something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt.core.messages import DeliverEvent
from shardrt.core.state import Lane
from shardrt.links.messages import Acknowledge, Deliver
from shardrt.store.base import ERA
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import run_virtual
from tests.host.flows import app

if TYPE_CHECKING:
    from shardrt.links.messages import PartitionTraffic

EVENT = DeliverEvent("nobody", "go", Raw(b"1"))


@pytest.mark.parametrize(
    ("epoch", "taken"), [(ERA + 7, False), (3 * ERA, False), (1, True), (999, True), (0, True)]
)
def test_a_message_of_another_era_is_not_taken(epoch: int, taken: bool):
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hub.quiet()
            host = hub.owners[0].shard.hosts[0]
            host.receive(Deliver(1, 0, 1, (EVENT,), epoch))
            await hub.quiet()
            assert host.core.state.received.get(1, 0) == int(taken)

    run_virtual(main())


@pytest.mark.parametrize(("epoch", "taken"), [(ERA + 7, False), (1, True), (0, True)])
def test_an_acknowledgement_of_another_era_is_not_believed(epoch: int, taken: bool):
    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hub.quiet()
            host = hub.owners[0].shard.hosts[0]
            lane = host.core.state.lanes[1] = Lane(messages=[EVENT])
            host.receive(Acknowledge(0, 1, 1, epoch))
            assert bool(host.core.entries) is taken
            lane.messages.clear()

    run_virtual(main())


def test_messages_tell_the_epoch_of_their_sender(monkeypatch: pytest.MonkeyPatch):
    sent: list[PartitionTraffic] = []

    async def main() -> None:
        async with Hub(app, partitions=2, shards=1) as hub:
            await hub.quiet()
            host = hub.owners[0].shard.hosts[0]
            monkeypatch.setattr(hub.owners[0], "send", lambda _, message: sent.append(message))
            host.core.state.lanes[1] = Lane(messages=[EVENT])
            host.lanes.transmit(1, 1)
            assert sent == [Deliver(0, 1, 1, (EVENT,), host.epoch)]
            del host.core.state.lanes[1]

    run_virtual(main())
