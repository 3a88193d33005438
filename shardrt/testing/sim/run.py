"""One run: a cluster by seed, a storm, then calm in which everything must finish; the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import msgspec

from shardrt.config import Settings
from shardrt.config.settings import HostSettings, ShardSettings
from shardrt.core import requests as r
from shardrt.testing.sim.characters import CHARACTERS, Scene
from shardrt.testing.sim.clients import SimClient
from shardrt.testing.sim.clocks import Oscillator
from shardrt.testing.sim.cluster import Cluster
from shardrt.testing.sim.ledger import Violation
from shardrt.testing.sim.processes import SimLoop, run_cluster
from shardrt.testing.sim.programs import Register, World, app, present, register
from shardrt.testing.sim.storm import Climate, Storm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shardrt.host.partition_host import PartitionHost

OWNED_S = 5.0
"""Beside the TTL: within that time after healing all partitions must be served."""
FINISH_S = 240.0
"""Within that time after healing all scenes must be over."""
QUIET_S = 60.0


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run found."""

    seed: int
    violations: list[Violation] = field(default_factory=list)
    fingerprint: str = ""
    virtual_s: float = 0.0
    facts: dict[str, int] = field(default_factory=dict)
    trace: list[tuple[object, ...]] = field(default_factory=list)
    plan: str = ""

    @property
    def is_good(self) -> bool:
        return not self.violations


def simulate(seed: int) -> Report:
    """Run one seed to its end."""
    logging.disable(logging.CRITICAL)  # what is told in a storm, is told a lot
    try:
        return run_cluster(lambda loop: Run(loop, seed).run())
    except Exception as error:  # noqa: BLE001 - whatever went wrong has gone wrong in this run
        return Report(seed=seed, violations=[Violation("run", repr(error), 0.0)])
    finally:
        logging.disable(logging.NOTSET)


class Run:
    """Everything of one run."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        self._random = random = Random(f"shardrt {seed}")  # noqa: S311
        self._loop = loop
        self._report = Report(seed=seed)
        self._partitions = random.randint(1, 6)
        self._ttl_s = random.choice((2.0, 3.0, 6.0))
        self._climate = Climate.draw(random)
        present.world = World()
        self.cluster = Cluster(loop, random, app, self._partitions)
        self._ledger = self.cluster.ledger
        self._ledger.returned = present.world.returned
        present.world.on_start = self._ledger.on_start
        self._scenes: list[Scene] = []
        self._playing: set[str] = set()
        """Names of the scenes that are not over."""

    async def run(self) -> Report:
        """Play it all."""
        cluster, report = self.cluster, self._report
        await cluster.create()
        self._make_machines()
        storm = Storm(cluster, self._climate, self._random, self._ttl_s)
        storm.begin()
        for machine in cluster.machines:
            machine.start()
        self._start_scenes()
        await storm.rage()
        storm.heal()
        report.facts["incidents"] = storm.incidents
        with contextlib.suppress(_Over):
            await self._calm()
        report.violations = self._ledger.violations
        report.fingerprint = cluster.fingerprint()
        report.virtual_s = self._loop.time()
        report.trace = list(cluster.trace)
        report.facts |= {
            "records": sum(self._ledger.lsns),
            "entries": self._ledger.entries,
            "recoveries": self._ledger.recoveries,
            "fenced": sum(self._ledger.fenced.values()),
            "activities": present.world.runs,
        }
        return report

    # -- what there is -------------------------------------------------------------------------

    def _make_machines(self) -> None:
        random, skewed = self._random, "clocks" in self._climate.kinds
        machines = random.choice((1, 2, 2, 3, 3, 4))
        shard = ShardSettings(
            checkpoint_interval_s=random.choice((0.1, 0.5, 1.0)),
            checkpoint_bytes_max=random.choice((2_000, 1_000_000)),
            resident_bytes_max=random.choice((1, 1, 20_000, 1_000_000)),
            activity_concurrency_max=random.choice((2, 100)),
            watchdog_s=random.choice((2.0, 15.0)),
        )
        for _ in range(machines):
            host = HostSettings(
                shards=random.choice((1, 1, 2)),
                gateways=1,
                lease_ttl_s=self._ttl_s,
                drain_s=random.choice((0.5, 10.0)),
            )
            oscillator = Oscillator(
                self._loop,
                start_s=random.uniform(0, 1e6) if skewed else 0.0,
                rate=1 + random.uniform(-5e-4, 5e-4) if skewed else 1.0,
            )
            if skewed:
                oscillator.wall_skew_us = round(random.uniform(-1, 1) * 3600e6)
            self.cluster.add_machine(Settings(host=host, shard=shard), oscillator)
        kinds = ", ".join(sorted(self._climate.kinds)) or "no faults"
        self._report.plan = (
            f"{machines} hosts, {self._partitions} partitions, TTL {self._ttl_s:g} s, "
            f"{self._climate.lasts_s:.1f} s of: {kinds}"
        )

    def _start_scenes(self) -> None:
        random = self._random
        names = random.choices(sorted(CHARACTERS), k=random.randint(2, 7))
        names += ["look"] * random.randint(0, 2)
        for number, name in enumerate(names):
            clients = [
                SimClient(self.cluster, f"c{number}.{each}") for each in range(random.randint(1, 3))
            ]
            scene = Scene(f"{name.replace(' ', '-')}{number}", Random(random.random()), clients)  # noqa: S311
            self._scenes.append(scene)
            delay_s = random.uniform(0.0, self._climate.lasts_s * 0.7)
            self._playing.add(scene.name)
            clients[0].process.spawn(self._play(scene, name, delay_s))

    async def _play(self, scene: Scene, name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            for client in scene.clients:
                await client.open()
            await CHARACTERS[name](scene)
        except Exception as error:  # noqa: BLE001 - a scene that fails is a finding
            scene.check(False, f"failed: {error!r}")
        self._playing.discard(scene.name)
        self.cluster.note("scene over", scene.name)

    # -- what must be so -----------------------------------------------------------------------

    async def _calm(self) -> None:
        # What was on its way through the storm may still be late.
        await asyncio.sleep(max(0.0, self.cluster.server.last_s - self._loop.time()))
        # A host that came up just now may have to wait for the lease of its former self. And where
        # the shards of all hosts have ended again and again, the next one is started after a pause.
        pauses = [each.host.shard_due_s for each in self.cluster.machines if each.has_booted]
        pause_s = min(pauses, default=0.0)
        await self._until("I12", pause_s + self._ttl_s + OWNED_S, self._unowned)
        self.cluster.note("owned")
        await self._until("liveness", FINISH_S, lambda: sorted(self._playing))
        await self._until("liveness", QUIET_S, self._restless)
        await self._compare()

    async def _until(self, invariant: str, within_s: float, missing: Callable[[], object]) -> None:
        """Wait until nothing is missing. Raises `_Over` after that time, or when all is lost."""
        end_s = self._loop.time() + within_s
        while (left := missing()) and not self._ledger.violations:
            if self._loop.time() > end_s:
                self._ledger.violated(invariant, f"after {within_s:g} s without faults: {left}")
            else:
                await asyncio.sleep(0.1)
        if self._ledger.violations:
            raise _Over

    def _unowned(self) -> str:
        left = [p for p in range(self._partitions) if self.cluster.owner_of(p) is None]
        return f"no owner of {left}" if left else ""

    def _restless(self) -> str:
        for partition in range(self._partitions):
            host = self.cluster.owner_of(partition)
            if host is None or not self._is_quiet(host):
                return f"partition {partition} has something to do"
        return ""

    def _is_quiet(self, host: PartitionHost) -> bool:
        core = host.core
        if core.entries:  # an acknowledgement may wait for the next record
            host.shard.wake(host, work=False)
        return not (
            host.closed
            or core.entries
            or core.out
            or core.has_turns
            or host.release.durable != host.release.sealed
            or host.release.durable != self._ledger.lsns[host.partition]
            or any(lane.messages for lane in core.state.lanes.values())
        )

    async def _compare(self) -> None:
        for partition in range(self._partitions):
            host = self.cluster.owner_of(partition)
            assert host is not None, "it is quiet"
            self._ledger.check_live(host.core)
        self._ledger.judge_slots()
        asker = SimClient(self.cluster, "asker")
        await asker.open()
        await asyncio.wait_for(self._compare_answers(asker), FINISH_S)
        asker.process.kill()

    async def _compare_answers(self, asker: SimClient) -> None:
        for shadow in self._ledger.shadows:
            for instance_id, instance in list(shadow.instances.items()):
                history = await asker.history(instance_id)
                if history != instance.tail:
                    text = f"history of {instance_id} is {history}, not {instance.tail}"
                    self._ledger.violated("I3", text)
        await self._compare_registers(asker)

    async def _compare_registers(self, asker: SimClient) -> None:
        seen: dict[str, Register] = {}
        for key in sorted(self._registers()):
            entity = register(key)
            found = await asker.ask(entity, r.GetEntity())
            value = msgspec.json.decode(found.state, type=Register) if found else Register()
            seen[key] = value
            repeated = sorted({each for each in value.tokens if value.tokens.count(each) > 1})
            if repeated:
                self._ledger.violated("I6", f"written twice to {key}: {repeated}")
        tokens = {token for each in seen.values() for token in each.tokens}
        for scene in self._scenes:
            lost = sorted(set(scene.written) - tokens)
            if lost:
                self._ledger.violated("I1", f"{lost} of {scene.name} were never written")
            for key, count in scene.sections.items():
                if seen[key].value != count:
                    text = f"{key} was counted up to {seen[key].value} in {count} sections"
                    self._ledger.violated("I6", text)

    def _registers(self) -> Iterator[str]:
        keys = {"k0", "k1", "k2"}
        for scene in self._scenes:
            keys |= scene.sections.keys()
        yield from keys


class _Over(Exception):
    """Something is wrong, and going on would show nothing more."""
