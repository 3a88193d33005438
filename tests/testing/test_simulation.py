"""Users' flows under faults by seed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from shardrt import App, OrchestrationContext
from shardrt.config import Settings
from shardrt.config.settings import LimitSettings
from shardrt.errors import PayloadTooLarge
from shardrt.host.interpreter import environment
from shardrt.testing import SimulationFailed, run_virtual, simulate
from shardrt.testing.simulation import _StormyEnvironment
from shardrt.testing.storm import FAULTS_MAX, Mix
from tests.testing import simulated
from tests.testing.simulated import app, once, runs, scenario

if TYPE_CHECKING:
    from shardrt.client import Client
    from shardrt.testing.simulation import Simulated

SEEDS = range(40)


@pytest.fixture(scope="module")
def all_simulated() -> list[Simulated]:
    return simulate(app, scenario, seeds=SEEDS)


def test_a_sound_flow_survives_everything(all_simulated: list[Simulated]):
    assert [each.seed for each in all_simulated] == list(SEEDS)


def test_the_first_seed_is_without_faults(all_simulated: list[Simulated]):
    first, *others = all_simulated
    assert (first.mix, first.happened) == (Mix(), ())
    assert len({each.digest for each in others}) == len(others)


@pytest.mark.parametrize(
    "fault",
    [
        "append: before",
        "append: after",
        "append: lost",
        "append: crash before",
        "append: crash after",
        "shard 1 crashes",
        "is handed over",
        "is taken away",
    ],
)
def test_everything_goes_wrong_in_some_seed(all_simulated: list[Simulated], fault: str):
    assert any(each.endswith(fault) for one in all_simulated for each in one.happened)


def test_a_storm_ends(all_simulated: list[Simulated]):
    failed = [sum("store call" in each for each in one.happened) for one in all_simulated]
    assert max(failed) == FAULTS_MAX


def test_idle_instances_are_evicted_if_that_is_drawn():
    async def main() -> int:
        mix = Mix(evicts=True, checkpoint_s=0.01)
        async with _StormyEnvironment(app, mix) as env:
            await scenario(env.client)
            return sum(member.shard.checkpointer.evictions for member in env.hub.members)

    assert run_virtual(main()) > 0


def test_what_is_drawn_has_all_kinds_of_faults():
    mixes = [Mix.drawn(seed) for seed in range(100)]
    for name in ("loss", "repetition", "failures", "crashes", "incidents", "latency_s"):
        assert len({getattr(mix, name) for mix in mixes}) > 2, name
    assert any(mix.evicts for mix in mixes)


def test_activities_run_more_than_once_and_the_error_says_how_to_see_it():
    with pytest.raises(SimulationFailed, match="ran more than once") as caught:
        simulate(app, once, seeds=SEEDS)
    failed = caught.value
    assert isinstance(failed.__cause__, AssertionError)
    assert failed.seed > 0
    assert f"seeds=[{failed.seed}]" in str(failed)
    assert failed.happened[-1] in str(failed)
    assert str(failed.mix) in str(failed)
    with pytest.raises(SimulationFailed) as again:
        simulate(app, once, seeds=[failed.seed])
    assert str(again.value) == str(failed)
    simulate(app, once, seeds=[0])
    assert max(runs.values()) == 1


def test_the_same_seed_gives_the_same_trace(all_simulated: list[Simulated]):
    again = simulate(app, scenario, seeds=SEEDS[::-4])
    assert again == all_simulated[::-4]


def test_the_same_seed_gives_the_same_trace_in_every_process(all_simulated: list[Simulated]):
    outputs = [
        subprocess.run(
            [sys.executable, simulated.__file__],
            env=environment() | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        ).stdout
        for seed in ("1", "2")
    ]
    here = "".join(f"{each.seed} {each.digest}\n" for each in all_simulated[1:9])
    assert outputs == [here, here]


def test_stubs_and_settings_are_those_of_an_environment():
    async def stubbed(client: Client) -> None:
        assert await (await client.start("part", 1)).result() == 3
        with pytest.raises(PayloadTooLarge):
            await client.start("order", "x" * 2000)

    settings = Settings(limits=LimitSettings(payload_bytes_max=1024))
    simulate(app, stubbed, seeds=range(3), stubs={"charge": lambda name: "abc"}, settings=settings)


def test_it_can_be_used_while_a_loop_runs():
    async def main() -> int:
        return len(simulate(app, scenario, seeds=[0, 1]))

    assert asyncio.run(main()) == 2


# -- what is wrong with a flow ---------------------------------------------------------------------

wrong = App()
courses: list[int] = []


@wrong.orchestrator
async def forever(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_event("never")


@wrong.orchestrator
async def fickle(ctx: OrchestrationContext) -> str:
    """Takes another course each time."""
    courses.append(1)
    await ctx.create_timer(timedelta(seconds=len(courses)))
    await ctx.call_activity("none" if len(courses) % 2 else "nothing")
    return "done"


@wrong.activity
def nothing() -> None:
    pass


@wrong.activity
def none() -> None:
    pass


def test_a_flow_that_never_ends_is_named():
    async def main(client: Client) -> None:
        await (await client.start(forever, instance_id="f")).result()

    with pytest.raises(SimulationFailed, match=r"seed 0: Deadlock: .*forever 'f'") as caught:
        simulate(wrong, main)
    assert "nothing\nonce more" in str(caught.value)


def test_a_flow_that_is_not_deterministic_is_found_out():
    async def main(client: Client) -> None:
        courses.clear()
        assert await (await client.start(fickle)).result() == "done"

    with pytest.raises(SimulationFailed, match="parked: not deterministic: history says") as caught:
        simulate(wrong, main)
    assert caught.value.seed > 0
