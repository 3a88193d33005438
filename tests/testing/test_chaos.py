"""Faults on purpose: as often as asked for, never in production, and gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import App, OrchestrationContext
from shardrt.errors import ConfigInvalid, OrchestrationFailed, SchedulingVetoed
from shardrt.testing import Environment, run_virtual
from shardrt.testing.chaos import (
    BasicChaosAgent,
    ChaosConfiguration,
    ChaosInjected,
    ResourceType,
    SafeChaosAgent,
    use_chaos,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TRIES = 2000
MEBIBYTE = 1024 * 1024


class Naps:
    """Stands for `asyncio.sleep`, and notes how long it was to take and what was then."""

    def __init__(self, look: Callable[[], Any] = lambda: None) -> None:
        self.seconds: list[float] = []
        self.seen: list[Any] = []
        self._look = look

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.seen.append(self._look())


def agent_of(seed: int = 1, look: Callable[[], Any] = lambda: None) -> tuple[BasicChaosAgent, Naps]:
    naps = Naps(look)
    return BasicChaosAgent(random.Random(seed), naps), naps


def run(*calls: Awaitable[None]) -> None:
    async def main() -> None:
        for each in calls:
            await each

    asyncio.run(main())


# -- how often ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_latency_comes_as_often_as_asked_for(probability: float):
    agent, naps = agent_of()
    run(*(agent.inject_latency("op", timedelta(seconds=2), probability) for _ in range(TRIES)))
    assert_binomial(len(naps.seconds), probability)
    assert set(naps.seconds) <= {2.0}
    assert agent.injected["latency"] == len(naps.seconds)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_failures_come_as_often_as_asked_for(probability: float):
    agent, _ = agent_of()
    failed = 0

    async def main() -> None:
        nonlocal failed
        for _ in range(TRIES):
            try:
                await agent.inject_failure("op", OSError("on purpose"), probability)
            except OSError:
                failed += 1

    asyncio.run(main())
    assert_binomial(failed, probability)


def assert_binomial(count: int, probability: float) -> None:
    """Five standard deviations; exact at both ends."""
    margin = 5 * math.sqrt(TRIES * probability * (1 - probability))
    assert abs(count - TRIES * probability) <= margin


def test_the_same_seed_has_the_same_faults():
    def course(seed: int) -> list[int]:
        agent, naps = agent_of(seed)
        run(*(agent.inject_latency("op", n, 0.3) for n in range(100)))
        return [int(each) for each in naps.seconds]

    assert course(1) == course(1)
    assert course(1) != course(2)


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan, "often"])
def test_what_is_no_probability_is_refused(probability: Any):
    agent, _ = agent_of()
    with pytest.raises(ConfigInvalid, match="from 0 to 1"):
        run(agent.inject_latency("op", 1.0, probability))
    with pytest.raises(ConfigInvalid, match="from 0 to 1"):
        run(agent.inject_failure("op", OSError(), probability))


# -- resources ---------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("cancelled", [False, True])
def test_memory_is_really_held_and_given_back(cancelled: bool):
    before = resident_bytes()
    agent, naps = agent_of(look=resident_bytes)
    if cancelled:
        agent._sleep = _cancelled(naps)
    with _expected(cancelled):
        run(agent.inject_resource_exhaustion(ResourceType.MEMORY, 2))
    assert naps.seconds == [2.0]
    assert naps.seen[0] - before > 60 * MEBIBYTE
    assert resident_bytes() - before < 16 * MEBIBYTE


def burning() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "shardrt-chaos"]


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_processor_is_busy_until_it_is_let_go(cancelled: bool):
    agent, naps = agent_of(look=burning)
    if cancelled:
        agent._sleep = _cancelled(naps)
    with _expected(cancelled):
        run(agent.inject_resource_exhaustion(ResourceType.CPU, 1000))
    assert naps.seen == [["shardrt-chaos"]]
    assert burning() == []


def _cancelled(naps: Naps) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        await naps(seconds)
        raise asyncio.CancelledError

    return sleep


def _expected(cancelled: bool) -> Any:
    return pytest.raises(asyncio.CancelledError) if cancelled else contextlib.nullcontext()


@pytest.mark.parametrize("resource", sorted(set(ResourceType) - {"memory", "cpu"}))
def test_what_cannot_be_exhausted_from_within_is_said(resource: ResourceType):
    agent, _ = agent_of()
    with pytest.raises(ConfigInvalid, match="simulate"):
        run(agent.inject_resource_exhaustion(resource, 1))


def test_while_the_network_is_cut_nothing_passes_whatever_the_probability():
    async def main() -> None:
        agent = BasicChaosAgent(random.Random(1))
        cut = asyncio.create_task(agent.inject_network_partition(10))
        await asyncio.sleep(5)
        assert agent.is_partitioned
        with pytest.raises(ConnectionError, match="op is cut off"):
            await agent.inject_latency("op", 1, 0.0)
        with pytest.raises(ConnectionError, match="op is cut off"):
            await agent.inject_failure("op", OSError(), 0.0)
        await cut
        await agent.inject_failure("op", OSError(), 0.0)
        again = asyncio.create_task(agent.inject_network_partition(10))
        await asyncio.sleep(5)
        again.cancel()
        await asyncio.wait([again])
        assert not agent.is_partitioned

    run_virtual(main())


# -- whether at all ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "good"),
    [
        ({}, True),
        ({"environment": "staging"}, True),
        ({"environment": "production"}, False),
        ({"environment": " Production-EU "}, False),
        ({"environment": "PROD"}, False),
        ({"environment": "live"}, False),
        ({"environment": ""}, False),
        ({"default_latency_probability": 1.01}, False),
        ({"default_failure_probability": -0.01}, False),
        ({"default_failure_probability": math.nan}, False),
        ({"default_latency_delay": -1}, False),
        ({"default_latency_delay": timedelta(seconds=1)}, True),
        ({"max_resource_exhaustion_duration": math.inf}, False),
        ({"default_latency_probability": 1, "default_failure_probability": 0}, True),
    ],
)
def test_a_configuration_is_valid_and_safe_or_not(options: dict[str, Any], good: bool):
    assert not ChaosConfiguration().enabled
    assert ChaosConfiguration(**options).is_valid_and_safe() == good
    assert SafeChaosAgent(agent_of()[0], ChaosConfiguration(**options)).is_active is False
    enabled = ChaosConfiguration(enabled=True, **options)
    assert SafeChaosAgent(agent_of()[0], enabled).is_active == good


def everything(agent: SafeChaosAgent) -> list[str]:
    """Ask an agent for everything; return what happened."""
    happened = []

    async def main() -> None:
        await agent.inject_latency("op", 1)
        try:
            await agent.inject_failure("op", OSError())
        except OSError:
            happened.append("failure")
        await agent.inject_resource_exhaustion(ResourceType.CPU, 1000)
        await agent.inject_network_partition(1000)

    asyncio.run(main())
    return happened


@pytest.mark.parametrize(
    ("options", "naps_s", "failures"),
    [
        ({"enabled": False}, [], []),
        ({"environment": "production"}, [], []),
        ({"default_latency_probability": 7}, [], []),
        ({}, [1.0], ["failure"]),
        ({"resource_exhaustion_enabled": True}, [1.0, 10.0], ["failure"]),
        (
            {"network_partition_enabled": True, "max_resource_exhaustion_duration": 3},
            [1.0, 3.0],
            ["failure"],
        ),
    ],
)
def test_a_safe_agent_does_what_is_enabled_and_bounds_it(
    options: dict[str, Any], naps_s: list[float], failures: list[str]
):
    agent, naps = agent_of()
    configuration = ChaosConfiguration(**{"enabled": True} | options)
    assert everything(SafeChaosAgent(agent, configuration)) == failures
    assert naps.seconds == naps_s


# -- in an app ---------------------------------------------------------------------------------


def an_app() -> App:
    app = App()

    @app.activity
    async def work(n: int) -> int:
        return n

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, n: int) -> int:
        return await ctx.call_activity(work, n)

    return app


def chaotic(**options: Any) -> ChaosConfiguration:
    return ChaosConfiguration(
        **{
            "enabled": True,
            "default_latency_probability": 0.0,
            "default_failure_probability": 0.0,
        }
        | options
    )


@pytest.mark.parametrize(
    "options", [{"enabled": False}, {"environment": "production"}, {"environment": ""}]
)
def test_where_there_must_be_no_chaos_the_app_stays_as_it_was(options: dict[str, Any]):
    app = an_app()
    assert use_chaos(app, BasicChaosAgent(), chaotic(**options)) is False
    assert (app._around, app._before) == ([], [])


def test_a_configuration_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigInvalid) as caught:
        use_chaos(
            an_app(),
            BasicChaosAgent(),
            chaotic(default_failure_probability=2, default_latency_delay=-1),
        )
    assert caught.value.problems == [
        "chaos: default_failure_probability is from 0 to 1, not 2",
        "chaos: default_latency_delay: a duration is at least 0 seconds, not -1",
    ]


def test_latency_delays_each_attempt():
    app = an_app()
    use_chaos(
        app,
        BasicChaosAgent(random.Random(1)),
        chaotic(default_latency_probability=1.0, default_latency_delay=timedelta(minutes=1)),
    )

    async def main() -> None:
        async with Environment(app) as env:
            began = env.now
            assert await (await env.client.start("flow", 3)).result() == 3
            assert 60 <= (env.now - began).total_seconds() < 61

    run_virtual(main())


def test_starts_and_attempts_fail_as_they_are_told_to():
    app = an_app()

    class Picky(BasicChaosAgent):
        """Lets starts pass while it is told to."""

        lets_start = False

        async def inject_failure(
            self, operation: str, error: Exception, probability: float = 1.0
        ) -> None:
            if not (self.lets_start and operation == "start of flow"):
                await super().inject_failure(operation, error, probability)

    agent = Picky(random.Random(1))
    use_chaos(app, agent, chaotic(default_failure_probability=1.0))

    async def main() -> None:
        async with Environment(app) as env:
            with pytest.raises(SchedulingVetoed, match="chaos prevented scheduling of flow"):
                await env.client.start("flow", 1, instance_id="i")
            assert await env.client.get("i") is None
            agent.lets_start = True
            handle = await env.client.start("flow", 1, instance_id="i")
            with pytest.raises(OrchestrationFailed) as caught:
                await handle.result()
            assert caught.value.failure.cause is not None
            assert caught.value.failure.cause.type == ChaosInjected.__name__

    run_virtual(main())
