"""Random life of limits: activities that share slots across partitions, and all that ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from shardrt.core import history as h
from shardrt.core.limiter import LINGER, Numbers, limiter_id
from tests.core import limit_laws
from tests.core.driver import RETRY, SECOND, WEIGHTS, Driver

if TYPE_CHECKING:
    from random import Random

    from shardrt.core.state import Instance
    from shardrt.core.work import WorkItem

LIMIT_WEIGHTS = {name: weight for name, weight in WEIGHTS.items() if "entity" not in name} | {
    "turn": 24,
    "end_activity": 24,
    "commit": 24,
    "deliver": 30,
    "acknowledge": 12,
    "pass_time": 8,
    "exchange": 12,
    "change_numbers": 1,
    "terminate": 1,
    "purge": 1,
    "settle": 4,
    "forget": 0,
}
TOTAL = h.Retry(max_attempts=5, first_interval=SECOND, total=4 * SECOND)
HEALING_ROUNDS_MAX = 400


class LimitDriver(Driver):
    """See the module."""

    weights = LIMIT_WEIGHTS

    def __init__(self, random: Random, partitions: int) -> None:
        super().__init__(random, partitions)
        ids = range(min(2, partitions))
        self.limiters = [limiter_id("shared", f"{n}!{n}") for n in ids]
        self.allowed = [self._some_numbers() for _ in self.limiters]

    def _some_numbers(self) -> Numbers:
        concurrency = self.random.choice([None, 1, 2, 3])
        rate = self.random.choice([None, 1, 2, 5] if concurrency else [1, 2, 5])
        per = 0 if rate is None else self.random.choice([1, 2, 5]) * SECOND
        return Numbers(concurrency, rate, per)

    def do_change_numbers(self) -> None:
        """Deploy other numbers; calls made before keep theirs."""
        self.allowed[self.random.randrange(len(self.allowed))] = self._some_numbers()

    def do_exchange(self) -> None:
        """Let the network work for once."""
        self.world.commit_all()
        for node in self.world.nodes:
            for destination, lane in node.core.state.lanes.items():
                self.world.send(node, destination, lane.last)
        while self.world.frames:
            self._deliver(self.world.frames.pop(0))
            self.world.commit_all()

    def _action(self, task_id: int, item: WorkItem, instance: Instance | None) -> h.Action:
        if self.random.random() < 0.25:
            return super()._action(task_id, item, instance)
        n = self.random.randrange(len(self.limiters))
        quota = h.Quota(limiter=self.limiters[n], numbers=self.allowed[n])
        retry = self.random.choice([None, RETRY, RETRY, TOTAL])
        return h.TaskScheduled(task_id, "act", Raw(b"5"), retry, limit=quota)

    def entity_actions(self, item: WorkItem, instance: Instance | None) -> tuple[h.Action, ...]:
        return ()

    def act_as(self, name: str) -> None:
        super().act_as(name)
        limit_laws.check_running(self.world)

    # -- phase two -------------------------------------------------------------------------------

    def heal(self) -> None:
        """Let nothing go wrong any more: everybody who waits gets a turn. Code does nothing."""
        world = self.world
        for node in world.nodes:
            world.crash(node)
        for _ in range(HEALING_ROUNDS_MAX):
            for node in world.nodes:
                world.fire(node)
                world.commit(node)
                for destination, lane in node.core.state.lanes.items():
                    world.send(node, destination, lane.last)
            world.exchange()
            limit_laws.check_settled(world)
            limit_laws.check(world)
            if not any(True for _ in limit_laws.slots(world)):
                return
            if world.running:
                world.activity_ended(world.running.pop(0), Raw(b"8"))
            else:
                world.now += SECOND
        raise AssertionError("somebody waits for ever")

    def finish(self) -> None:
        """Let everything end, and be forgotten."""
        self.heal()
        super().finish()
        limit_laws.check_settled(self.world)
        self.world.now += LINGER + 10 * SECOND
        for node in self.world.nodes:
            self.world.fire(node)
        self.world.commit_all()
        assert limit_laws.limiters(self.world) == {}
