"""Activities that may start before what asked for them is durable."""

from __future__ import annotations

import asyncio

import pytest

from shardrt import ActivityContext, App, OrchestrationContext
from shardrt.testing.client import HubClient
from shardrt.testing.faults import Fault
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import START_US, pass_time, run_virtual

COMMIT_S = 0.5
"""How long a store call takes to take effect, and again until that is known."""


class Log:
    """When activities ran, and which run it was."""

    def __init__(self) -> None:
        self.app = App()
        self.began_s: list[float] = []
        log = self

        @self.app.activity(speculative=True)
        async def early(ctx: ActivityContext) -> int:
            return await log.run(0.0)

        @self.app.activity(speculative=True)
        async def slow(ctx: ActivityContext) -> int:
            return await log.run(3.0)

        @self.app.activity
        async def durable(ctx: ActivityContext) -> int:
            return await log.run(0.0)

        @self.app.orchestrator
        async def calls(ctx: OrchestrationContext, name: str) -> int:
            return await ctx.call_activity(name, result_type=int)

    async def run(self, seconds: float) -> int:
        self.began_s.append(asyncio.get_running_loop().time())
        number = len(self.began_s)
        await pass_time(seconds)
        return number


class FailAppend:
    """The n-th append from now on has a fault."""

    def __init__(self) -> None:
        self.countdown = 0
        self.kind: Fault | None = None

    def fault(self, number: int, name: str) -> Fault | None:
        if name != "append" or self.kind is None:
            return None
        self.countdown -= 1
        return self.kind if self.countdown == 0 else None


def hub_of(log: Log, plan: FailAppend | None = None) -> Hub:
    return Hub(log.app, partitions=1, plan=plan, latency_s=(COMMIT_S, COMMIT_S))


def delay_of(name: str) -> float:
    """Return how long after its instance was created an activity started."""
    log = Log()

    async def main() -> float:
        async with hub_of(log) as hub:
            client = HubClient(hub)
            await hub.until(lambda: hub.host_of(0) is not None)
            instance_id = await client.start("calls", name)
            await client.result(instance_id)
            created_at = (await client.wait(instance_id)).created_at
            return log.began_s[0] - (created_at - START_US) / 1e6

    return run_virtual(main())


def test_it_starts_before_its_record_is_durable_and_others_after():
    assert delay_of("early") < COMMIT_S / 2
    assert delay_of("durable") >= 2 * COMMIT_S


def test_a_result_of_a_run_whose_record_was_refused_does_not_count():
    log = Log()

    async def main() -> None:
        async with hub_of(log) as hub:
            client = HubClient(hub)
            await hub.until(lambda: hub.host_of(0) is not None)
            starting = asyncio.create_task(client.start("calls", "slow"))
            await hub.until(lambda: len(log.began_s) == 1)
            await hub.depose(0)  # before the record took effect
            assert await client.result(await starting) == 2
            assert len(log.began_s) == 2
            assert hub.broken == []

    run_virtual(main())


@pytest.mark.parametrize("fault", list(Fault))
def test_whatever_becomes_of_its_record_exactly_one_run_counts(fault: Fault):
    log = Log()
    plan = FailAppend()

    async def main() -> None:
        async with hub_of(log, plan) as hub:
            client = HubClient(hub)
            await hub.until(lambda: hub.host_of(0) is not None)
            plan.countdown, plan.kind = 1, fault
            instance_id = await client.start("calls", "slow")
            assert await client.result(instance_id) == len(log.began_s), (
                "only the newest run may count"
            )
            snapshot = await client.wait(instance_id)
            assert snapshot.status == "Completed"
            assert hub.broken == []

    run_virtual(main())
