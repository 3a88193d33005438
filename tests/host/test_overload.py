"""More is asked of a shard than it can do: it refuses, and what it refuses changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardrt import App, CallNext, OrchestrationContext, SchedulingInfo
from shardrt.config import Settings, ShardSettings
from shardrt.core import requests as r
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import pass_time, run_virtual
from tests.host.test_ownership import ask, code_of

if TYPE_CHECKING:
    import pytest

    from shardrt.links.messages import Answer

app = App()


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_event("go", str)


def test_requests_beyond_the_bound_are_refused_and_change_nothing():
    async def main() -> None:
        few = Settings(shard=ShardSettings(requests_in_flight_max=2))
        async with Hub(app, partitions=1, shards=1, settings=few) as hub:
            await hub.quiet()
            hub.calls.held.add("append")
            answers = [ask(hub, 0, f"i{n}", r.Start("waiter")) for n in range(3)]
            await pass_time(0.1)
            assert answers[:2] == [[], []]
            assert code_of(answers[2]) == "Overloaded"
            host = hub.host_of(0)
            assert host is not None
            assert set(host.core.instances) == {"i0", "i1"}
            hub.calls.held.clear()
            await pass_time(0.1)
            assert [code_of(each) for each in answers[:2]] == ["", ""]
            assert hub.owners[0].shard.requests_in_flight == 0

    run_virtual(main())


def test_starts_are_refused_while_too_many_wait_for_their_first_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("shardrt.host.rounds.TURN_S", 0.0)  # one turn, and then the loop goes on

    async def main() -> None:
        few = Settings(shard=ShardSettings(starts_waiting_max=3))
        async with Hub(app, partitions=1, shards=1, settings=few) as hub:
            await hub.quiet()
            host = hub.host_of(0)
            assert host is not None
            answers = [start(hub, f"i{n}") for n in range(3)]
            refused = [start(hub, "one of a burst")]
            while len(host.core.starting) != 2:  # noqa: ASYNC110 - turn by turn of the loop
                await asyncio.sleep(0)
            answers.append(start(hub, "i3"))
            refused.append(start(hub, "one too many"))
            message = "3 instances wait for their first turn"
            refusal = r.Refusal("Overloaded", message, 0.5)
            assert [each[0].refusal for each in refused] == [refusal] * 2
            await pass_time(1)
            answers.append(start(hub, "again"))
            await pass_time(1)
            assert [code_of(each) for each in answers] == [""] * 5
            assert host.core.instances.keys() == {"i0", "i1", "i2", "i3", "again"}

    def start(hub: Hub, instance_id: str) -> list[Answer]:
        return ask(hub, 0, instance_id, r.Start("waiter", fresh=True))

    run_virtual(main())


def test_starts_that_waited_in_a_partition_that_is_gone_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("shardrt.host.rounds.TURN_S", 0.0)

    async def main() -> None:
        few = Settings(shard=ShardSettings(starts_waiting_max=3))
        async with Hub(app, partitions=2, shards=1, settings=few) as hub:
            await hub.quiet()
            lost = hub.host_of(0)
            assert lost is not None
            for n in range(3):
                ask(hub, 0, f"i{n}", r.Start("waiter", fresh=True))
            while len(lost.core.starting) != 2:  # noqa: ASYNC110 - turn by turn of the loop
                await asyncio.sleep(0)
            lost.discard()
            answers = [ask(hub, 1, f"j{n}", r.Start("waiter", fresh=True)) for n in range(3)]
            await pass_time(1)
            assert [code_of(each) for each in answers] == ["", "", ""]

    run_virtual(main())


def test_starts_that_were_refused_after_all_keep_no_others_out():
    vetoing = App()
    vetoing.orchestrator(waiter)

    @vetoing.scheduling_middleware
    async def veto(info: SchedulingInfo, call_next: CallNext) -> None:
        if info.instance_id.startswith("bad"):
            raise PermissionError("not this one")
        await call_next()

    async def main() -> None:
        few = Settings(shard=ShardSettings(starts_waiting_max=3))
        async with Hub(vetoing, partitions=1, shards=1, settings=few) as hub:
            await hub.quiet()
            ids = ["bad1", "bad2", "bad3", "one of a burst"]
            refused = [ask(hub, 0, each, r.Start("waiter", fresh=True)) for each in ids]
            await pass_time(1)
            codes = [code_of(each) for each in refused]
            assert codes == ["SchedulingVetoed"] * 3 + ["Overloaded"]
            answer = ask(hub, 0, "good", r.Start("waiter", fresh=True))
            await pass_time(1)
            assert code_of(answer) == ""

    run_virtual(main())
