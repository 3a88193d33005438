"""`simulate`: a user's flows, driven to their end under faults, seed after seed.

Each seed draws how its hub is built and what goes wrong in it: see `storm.Mix`. Everything runs
in one event loop in virtual time, so a seed that has failed fails again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from shardrt.config import Settings
from shardrt.testing.environment import EVER_S, Environment
from shardrt.testing.hub import Hub
from shardrt.testing.network import Weather
from shardrt.testing.storm import Mix, Storm
from shardrt.testing.virtual import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from shardrt.client.client import Client
    from shardrt.orchestration.app import App

Scenario: TypeAlias = "Callable[[Client], Awaitable[object]]"

SHOWN_MAX = 20
"""So many of the latest faults does an error name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """One seed that went well."""

    seed: int
    mix: Mix
    """What was drawn for it."""
    happened: tuple[str, ...]
    """What went wrong, each with its virtual time, s. Lost and repeated messages are left out."""
    digest: str
    """Of all that happened and was stored: the same for the same seed and code."""


class SimulationFailed(AssertionError):
    """A scenario failed under some seed; the cause is what it raised."""

    def __init__(self, seed: int, mix: Mix, happened: Iterable[str], error: BaseException) -> None:
        self.seed = seed
        self.mix = mix
        self.happened = tuple(happened)
        shown = self.happened[-SHOWN_MAX:]
        left_out = len(self.happened) - len(shown)
        lines = [f"  {each}" for each in shown] or ["  nothing"]
        if left_out:
            lines.insert(0, f"  ({left_out} earlier ones)")
        super().__init__(
            f"seed {seed}: {type(error).__name__}: {error}\n"
            f"drawn: {mix}\n"
            "went wrong, by seconds of virtual time:\n"
            + "\n".join(lines)
            + f"\nonce more, alone: simulate(app, scenario, seeds=[{seed}])"
        )


def simulate(
    app: App,
    scenario: Scenario,
    *,
    seeds: Iterable[int] = range(100),
    stubs: Mapping[str, Callable[..., Any]] | None = None,
    settings: Settings | None = None,
) -> list[Simulated]:
    """Run a scenario under many mixes of faults; return what each of them was like.

    Shards crash between any two steps, commits fail, come late or end with nobody knowing how,
    messages are lost, repeated and reordered, partitions move, instances are evicted. Whatever
    the client was told must hold nonetheless; activities may run more than once. With seed 0
    nothing goes wrong.

    Args:
        app: what to serve. Its activities really run, in the event loop, without real I/O; see
            `Environment`.
        scenario: drives the app by the client it is given, and asserts. It runs once for each
            seed, so what it or the activities remember must begin anew.
        seeds: which ones.
        stubs: activities to replace; see `Environment.stub`.
        settings: as for `Environment`; how often checkpoints are taken is drawn.

    Raises:
        SimulationFailed: the scenario raised, or nothing would ever happen any more. Names the
            seed, what went wrong, and how to see it again.
    """
    return [_run(app, scenario, seed, stubs, settings or Settings()) for seed in seeds]


def _run(
    app: App,
    scenario: Scenario,
    seed: int,
    stubs: Mapping[str, Callable[..., Any]] | None,
    settings: Settings,
) -> Simulated:
    env = _StormyEnvironment(app, Mix.drawn(seed), stubs=stubs, seed=seed, settings=settings)

    async def main() -> str:
        async with env:
            env.hub.spawn(env.storm.rage())
            await scenario(env.client)
            return _digest(env.hub)

    try:
        digest = run_virtual(main())
    except Exception as error:
        raise SimulationFailed(seed, env.mix, env.storm.happened, error) from error
    return Simulated(seed=seed, mix=env.mix, happened=tuple(env.storm.happened), digest=digest)


class _StormyEnvironment(Environment):
    """An environment in which things go wrong."""

    def __init__(self, app: App, mix: Mix, **options: Any) -> None:
        self.mix = mix
        super().__init__(app, **options)
        self.storm = Storm(mix, self.hub)
        self.hub.calls.plan = self.storm

    def _make_hub(self, app: App, seed: int, settings: Settings) -> Hub:
        mix = self.mix
        shard = replace(settings.shard, checkpoint_interval_s=mix.checkpoint_s)
        hub = Hub(
            app,
            seed=seed,
            shards=mix.shards,
            partitions=mix.partitions,
            settings=replace(settings, shard=shard),
            latency_s=(0.0, mix.latency_s),
            weather=Weather(delay_s=(0.0, mix.delay_s), loss=mix.loss, repetition=mix.repetition),
            lease_s=EVER_S,
        )
        hub.evicts = mix.evicts
        return hub


def _digest(hub: Hub) -> str:
    digest = hashlib.sha256()
    for line in (*hub.trace, *hub.calls.names):
        digest.update(line.encode() + b"\n")
    for partition, records in sorted(hub.calls.records.items()):
        for lsn, record in sorted(records.items()):
            digest.update(b"%d %d %b\n" % (partition, lsn, record))
    return digest.hexdigest()
