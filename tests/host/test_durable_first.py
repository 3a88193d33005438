"""Nothing leaves a partition before the record that caused it is in the store (R1-R3)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from shardrt.core.codec import decode_record
from shardrt.core.partition import Partition
from shardrt.core.state import PartitionState
from shardrt.links.messages import Acknowledge, Answer, Deliver, Forward, Resend
from shardrt.testing.client import HubClient
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.flows import DRIVES, Drive, app

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.effects import RunActivity
    from shardrt.host.partition_host import PartitionHost
    from shardrt.links.messages import PartitionTraffic
    from shardrt.testing.hub import Member

MUTATING = {"Start", "Raise", "Terminate"}


class Customs:
    """Looks at whatever leaves, and compares it with what the store holds at that moment."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.seen = {"activity": 0, "message": 0, "answer": 0}
        for member in hub.members:
            self._watch(member)

    def durable(self, partition: int) -> Partition:
        core = Partition(PartitionState(partition=partition, partitions=self.hub.partitions))
        for _, record in sorted(self.hub.calls.records.get(partition, {}).items()):
            core.replay(decode_record(record))
        return core

    def _watch(self, member: Member) -> None:
        pool, start, send, submit = member.shard.pool, member.shard.pool.start, member.send, None
        pool.start = partial(self._on_start, start)  # type: ignore[method-assign]
        member.shard.network = _Network(partial(self._on_send, send))
        submit = member.shard.submit
        member.shard.submit = partial(self._on_submit, submit)  # type: ignore[method-assign]

    def _on_start(
        self,
        start: Callable[[PartitionHost, RunActivity], None],
        asker: PartitionHost,
        run: RunActivity,
    ) -> None:
        instance = self.durable(asker.partition).instances[run.instance_id]
        assert instance.execution_id == run.execution_id
        assert instance.pending[run.task_id].attempt == run.attempt
        self.seen["activity"] += 1
        start(asker, run)

    def _on_send(
        self, send: Callable[[int, PartitionTraffic], None], to: int, message: PartitionTraffic
    ) -> None:
        match message:
            case Deliver(source, destination, first, messages):
                lane = self.durable(source).state.lanes[destination]
                assert lane.last >= first + len(messages) - 1
            case Acknowledge(source, destination, last):
                assert self.durable(destination).state.received[source] >= last
            case Resend():
                pass
        self.seen["message"] += 1
        send(to, message)

    def _on_submit(
        self,
        submit: Callable[[Forward, Callable[[Answer], None]], None],
        call: Forward,
        answer: Callable[[Answer], None],
    ) -> None:
        def check(result: Answer) -> None:
            if result.refusal is None:
                durable = self.durable(call.partition)
                if type(call.request).__name__ in MUTATING:
                    assert durable.is_applied(call.origin), call
                if b'"Completed"' in bytes(result.result):
                    assert durable.instances[call.instance_id].is_final
                self.seen["answer"] += 1
            answer(result)

        submit(call, check)


class _Network:
    def __init__(self, send: Callable[[int, PartitionTraffic], None]) -> None:
        self.send = send


async def play(drive: Drive) -> dict[str, int]:
    async with Hub(app, partitions=3, shards=1, latency_s=(0.01, 0.05)) as hub:
        customs = Customs(hub)
        client = HubClient(hub)
        await drive(client)
        await hub.quiet()
        assert hub.broken == []
        return customs.seen


@pytest.mark.parametrize("flow", DRIVES)
def test_what_leaves_is_in_the_store(flow: str):
    seen = run_virtual(play(DRIVES[flow]))
    assert seen["answer"] > 1


def test_every_kind_of_thing_was_looked_at():
    seen = run_virtual(play(DRIVES["sub_orchestrations"]))
    assert seen["activity"] == 3
    assert seen["message"] >= 12


def test_a_start_is_answered_when_it_is_durable():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hub.quiet()
            client = HubClient(hub)
            hub.calls.held.add("append")
            hub.spawn(_ignore(client.start("sequence", "a", "one")))
            await pass_time(0.9)
            assert client.acknowledged == []
            hub.calls.held.clear()
            await pass_time(0.1)
            assert [each.instance_id for each in client.acknowledged] == ["one"]

    run_virtual(main())


def test_a_read_waits_for_what_it_saw():
    async def main() -> None:
        async with Hub(app, partitions=1, shards=1) as hub:
            await hub.quiet()
            writer, reader = HubClient(hub, "writer"), HubClient(hub, "reader")
            hub.calls.held.add("append")
            hub.spawn(_ignore(writer.start("sequence", "a", "one")))
            await pass_time(0.1)
            hub.spawn(_ignore(reader.get("one")))
            hub.spawn(_ignore(reader.history("one")))
            await pass_time(0.5)
            assert reader.acknowledged == []
            hub.calls.held.clear()
            await pass_time(0.1)
            assert len(reader.acknowledged) == 2

    run_virtual(main())


async def _ignore(call: object) -> None:
    await call  # type: ignore[misc]
