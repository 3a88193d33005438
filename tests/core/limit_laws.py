"""What must hold of limits at any moment, told apart from how limiters do it.

Who runs is looked up where it runs, in the instances. What limiters did is read off the
journal, entry by entry, and compared with what was asked of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core import entries as e, messages as m
from shardrt.core.limiter import Numbers, holder_of, is_limiter_id, slot_of
from shardrt.core.partition import Partition
from shardrt.core.state import PartitionState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardrt.core.limiter import Limiter
    from shardrt.core.state import Pending
    from tests.core.world import Node, World


def slots(world: World) -> Iterator[tuple[str, str, Pending]]:
    """Yield limiter, slot and activity for each attempt that has a slot or should want one."""
    for node in world.nodes:
        for instance in node.instances().values():
            for task_id, pending in instance.pending.items():
                if pending.limit is not None and pending.retry_at is None:
                    ids = (instance.instance_id, instance.execution_id, task_id, pending.attempt)
                    yield pending.limit.limiter, slot_of(*ids), pending


def limiters(world: World) -> dict[str, Limiter]:
    """Return all limiters, in memory or not."""
    return {
        entity_id: entity.limiter
        for node in world.nodes
        for entity_id, entity in node.entities().items()
        if entity.limiter is not None
    }


def check(world: World) -> None:
    """Check everything that can be checked at any time."""
    held = limiters(world)
    for limiter_id, slot, pending in slots(world):
        if pending.granted:
            # So there are never more at work than it has granted; see `_check_grant`.
            assert slot in held[limiter_id].holders, f"{slot} runs without a slot"
    for node in world.nodes:
        indexed = set(node.core.timers._heap)
        for entity_id, entity in node.core.entities.items():
            assert (entity.limiter is not None) == is_limiter_id(entity_id)
            if entity.limiter is not None and entity.limiter.due is not None:
                assert (entity.limiter.due, entity_id, 0) in indexed, "nobody will look again"


def check_running(world: World) -> None:
    """Check that only those are run that have a slot, or had one."""
    granted = {
        (message.instance_id, message.execution_id, message.task_id, message.attempt)
        for node in world.nodes
        for _, message in node.posted
        if isinstance(message, m.SlotGranted)
    }
    limited = {(limiter, slot): p.granted for limiter, slot, p in slots(world)}
    waiting = {holder_of(slot) for (_, slot), is_granted in limited.items() if not is_granted}
    for run in world.running:
        ids = (run.instance_id, run.execution_id, run.task_id, run.attempt)
        assert ids not in waiting or ids in granted, f"{ids} runs but waits for a slot"
        assert ids not in waiting, f"{ids} runs before it has heard of its slot"


def check_settled(world: World) -> None:
    """Check, when no message is under way, that slots are of those who need them, and no others."""
    assert not any(lane.messages for node in world.nodes for lane in node.core.state.lanes.values())
    needed: dict[str, dict[str, bool]] = {}
    for limiter_id, slot, pending in slots(world):
        needed.setdefault(limiter_id, {})[slot] = pending.granted
    held = limiters(world)
    assert needed.keys() <= held.keys()
    for limiter_id, limiter in held.items():
        known = dict.fromkeys(limiter.holders, True) | dict.fromkeys(limiter.waiting, False)
        assert known == needed.get(limiter_id, {}), f"{limiter_id}: slots leak"


# -- the journal of a limiter's partition ------------------------------------------------------


class _Story:
    """What one limiter was asked for, and did."""

    def __init__(self) -> None:
        self.line: list[str] = []
        self.held: set[str] = set()
        self.returned: set[str] = set()
        self.numbers = Numbers()
        self.as_of = 0
        self.grants: list[int] = []
        self.counted = 0
        """Grants before this one were made while a shorter window was in force: it may have
        forgotten when."""

    def ask(self, message: m.Message) -> None:
        if isinstance(message, m.SlotWanted):
            assert message.slot not in self.returned, "a want came after its return"
            if message.slot not in {*self.held, *self.line}:
                self.line.append(message.slot)
            if message.as_of >= self.as_of:
                self._change(message.numbers)
                self.as_of = message.as_of
        elif isinstance(message, m.SlotReturned):
            assert message.slot in {*self.held, *self.line}, "a return came before its want"
            self.returned.add(message.slot)
            self.held.discard(message.slot)
            self.line = [each for each in self.line if each != message.slot]

    def _change(self, numbers: Numbers) -> None:
        if self.numbers.rate is None or numbers.per > self.numbers.per:
            self.counted = len(self.grants)
        self.numbers = numbers

    def grant(self, slot: str, at: int) -> None:
        assert slot == self.line.pop(0), "it was not first in line"
        self.held.add(slot)
        assert not self.grants or at >= self.grants[-1], "time goes back"
        self.grants.append(at)
        assert self._within_concurrency(len(self.held)), "too many at a time"
        assert self._within_rate(at, 0, self.counted), "too many in a window"

    def _within_concurrency(self, count: int) -> bool:
        return self.numbers.concurrency is None or count <= self.numbers.concurrency

    def _within_rate(self, at: int, more: int, counted: int = 0) -> bool:
        rate, per = self.numbers.rate, self.numbers.per
        recent = [each for each in self.grants[counted:] if at - per < each <= at]
        return rate is None or len(recent) + more <= rate

    def check_no_room(self, limiter: Limiter, now: int) -> None:
        """Check that those who wait must, and for how long."""
        assert list(limiter.waiting) == self.line
        assert limiter.holders.keys() == self.held
        if not self.line or not self._within_concurrency(len(self.held) + 1):
            return
        assert not self._within_rate(now, 1), "there is room, and nobody gets it"
        assert limiter.due is not None
        assert self._within_rate(limiter.due, 1, self.counted), "it waits for too short"
        assert not self._within_rate(limiter.due - 1, 1), "it waits for too long"


def check_journal(node: Node) -> None:
    """Check all grants that were ever made, and that they were told to whom they were made."""
    core = Partition(PartitionState(partition=node.number, partitions=node.partitions))
    stories: dict[str, _Story] = {}
    granted: list[tuple[object, ...]] = []
    for entry in node.entries():
        limiter_id = e.instance_of(entry)
        is_of_limiter = limiter_id is not None and is_limiter_id(limiter_id)
        core.replay([entry])
        if limiter_id is None or not is_of_limiter:
            continue
        entity = core.entities.get(limiter_id)
        story = stories.setdefault(limiter_id, _Story())
        if isinstance(entry, e.Received):
            story.ask(entry.message)
        if entity is None:
            assert not story.held, "it was forgotten with slots out"
            assert not story.line, "it was forgotten while somebody waited"
            story.as_of = 0
            assert isinstance(entry, e.Fired)
            assert story._within_rate(entry.at, story.numbers.rate or 0), "forgotten too early"
            continue
        assert entity.limiter is not None
        for slot, at in entity.limiter.holders.items():
            if slot not in story.held:
                story.grant(slot, at)
                granted.append(holder_of(slot))
        story.check_no_room(entity.limiter, entity.updated_at)
    told = [
        (each.instance_id, each.execution_id, each.task_id, each.attempt)
        for _, each in node.posted
        if isinstance(each, m.SlotGranted)
    ]
    assert granted == told
