"""Random life of entities: what clients, orchestrations and other entities ask of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from shardrt.core import entity as en, history as h, requests as r

if TYPE_CHECKING:
    from random import Random

    from shardrt.core.state import Instance
    from shardrt.core.work import WorkItem
    from tests.core.world import World

SECOND = 1_000_000
ENTITY_WEIGHTS = {
    "signal_entity": 4,
    "call_entity": 4,
    "look_at_entity": 1,
    "purge_entity": 1,
    "entity_turn": 8,
    "take_entity_work": 2,
    "finish_entity_work": 2,
    "repeat_entity_step": 1,
}


class EntityActs:
    """The part of a driver that concerns entities."""

    random: Random
    world: World
    names: list[str]
    seq: int
    """Of requests, over all clients."""

    def __init__(self, partitions: int) -> None:
        self.entities = [f"@acc@{n}!{n}" for n in range(2 * partitions)]
        self.numbers = 0
        self.old_entity_steps: list[en.EntityStep] = []

    def _new_input(self) -> Raw:
        self.numbers += 1
        return Raw(b"%d" % self.numbers)

    def _moment(self) -> int | None:
        delay = self.random.choice([None, None, -SECOND, SECOND, 3 * SECOND])
        return None if delay is None else self.world.now + delay

    # -- clients -------------------------------------------------------------------------------

    def do_signal_entity(self) -> None:
        self._ask_entity(r.SignalEntity("add", self._new_input(), self._moment()))

    def do_call_entity(self) -> None:
        self._ask_entity(r.CallEntity("add", self._new_input()))

    def _ask_entity(self, request: r.SignalEntity | r.CallEntity) -> None:
        """Ask; and sometimes ask again, as who has heard nothing does."""
        self.seq += 1
        origin = r.Origin("eve", self.seq, self.seq)
        instance_id = self.random.choice(self.entities)
        self.world.request(instance_id, request, origin)
        if self.random.random() < 0.3:
            again = self.world.request(instance_id, request, origin)
            assert again in {None, r.Done()} or isinstance(again, r.EntityReply)

    def do_look_at_entity(self) -> None:
        instance_id = self.random.choice(self.entities)
        found = self.world.request(instance_id, r.GetEntity(), r.Origin("eve", 0, 0))
        assert found is None or isinstance(found, r.EntitySnapshot)

    def do_purge_entity(self) -> None:
        instance_id = self.random.choice(self.entities)
        entity = self.world.node_of(instance_id).core.entities.get(instance_id)
        empty = entity is not None and entity.is_empty
        self.seq += 1
        origin = r.Origin("eve", self.seq, self.seq)
        answer = self.world.request(instance_id, r.Purge(), origin)
        if entity is None:
            assert answer == r.Purged(0)
        else:
            assert (answer == r.Purged(1)) == empty

    # -- code of entities ----------------------------------------------------------------------

    def do_entity_turn(self) -> None:
        """Carry operations out at once."""
        work = self.world.next_entity_work(self.random.choice(self.world.nodes))
        if work is not None:
            self._finish_entity(work)

    def do_take_entity_work(self) -> None:
        """Take operations in hand, as a distant worker does."""
        self.world.next_entity_work(self.random.choice(self.world.nodes))

    def do_finish_entity_work(self) -> None:
        if self.world.entity_work:
            self._finish_entity(self.random.choice(self.world.entity_work))

    def do_repeat_entity_step(self) -> None:
        if self.old_entity_steps:
            assert not self.world.step_entity(self.random.choice(self.old_entity_steps))

    def _finish_entity(self, work: en.EntityWork) -> None:
        self.world.entity_work.remove(work)
        entity = self.world.node_of(work.instance_id).core.entities.get(work.instance_id)
        fits = entity is not None and entity.turn == work.turn
        step = self._entity_step(work)
        assert self.world.step_entity(step) == fits
        self.old_entity_steps = [*self.old_entity_steps[-3:], step]

    def _entity_step(self, work: en.EntityWork) -> en.EntityStep:
        chance = self.random.random()
        if chance < 0.05:
            return en.EntityStep(work.instance_id, work.token, parked="no code")
        count = self.random.choice([len(work.operations), 1, 0])
        results = tuple(
            en.OperationResult(each.input, h.Failure(type="E") if chance > 0.9 else None)
            for each in work.operations[:count]
        )
        state = self.random.choice([None, (), (Raw(b"0"),), (Raw(b"%d" % work.turn),)])
        outputs: list[en.Output] = []
        if results and self.random.random() < 0.2:
            other = self.random.choice(self.entities)
            outputs.append(en.SignalSent(other, "add", self._new_input(), self._moment()))
        if results and self.random.random() < 0.1:
            outputs.append(en.OrchestrationStarted(self.random.choice(self.names), "code"))
        return en.EntityStep(
            work.instance_id, work.token, results, state if results else None, tuple(outputs)
        )

    # -- what orchestrations ask for -------------------------------------------------------------

    def entity_actions(self, item: WorkItem, instance: Instance | None) -> tuple[h.Action, ...]:
        """Return what a turn asks of entities. Its task ids end with 5 to 9."""
        if instance is None or self.random.random() < 0.4:
            return ()
        task_id = 10 * item.turn + 5
        section = next(iter(instance.locks.items()), None)
        if section is not None and section[1].granted and self.random.random() < 0.5:
            return self._section_action(task_id, section[0], section[1].entities)
        kind = self.random.randrange(4)
        target = self.random.choice(self.entities)
        if kind == 0:
            return (h.EntityOperationCalled(task_id, target, "add", self._new_input()),)
        if kind == 1:
            signal = (target, "add", self._new_input(), self._moment())
            return (h.EntityOperationSignaled(task_id, *signal),)
        if kind == 2 and section is None:
            count = self.random.randint(1, min(3, len(self.entities)))
            wanted = tuple(sorted(self.random.sample(self.entities, count)))
            name = f"{item.execution_id}:{task_id}"
            return (h.EntityLockRequested(task_id, name, wanted),)
        waiting = [*instance.calls, *(each.task_id for each in instance.locks.values())]
        return (h.TaskCanceled(self.random.choice(waiting)),) if waiting else ()

    def _section_action(self, task_id: int, name: str, entities: list[str]) -> tuple[h.Action, ...]:
        target = self.random.choice(entities)
        call = h.EntityOperationCalled(task_id, target, "add", self._new_input(), name)
        unlock = h.EntityUnlockSent(task_id + 1, name, target)
        return self.random.choice([(call,), (unlock,), (call, unlock)])

    # -- phase two -------------------------------------------------------------------------------

    def finish_entities(self) -> None:
        """Carry out whatever is to be done."""
        for node in self.world.nodes:
            while self.world.next_entity_work(node) is not None:
                pass
        for work in list(self.world.entity_work):
            self.world.entity_work.remove(work)
            results = tuple(en.OperationResult(each.input) for each in work.operations)
            self.world.step_entity(en.EntityStep(work.instance_id, work.token, results))

    def check_finished(self) -> None:
        """Check that no lock is left, and nothing to do."""
        for node in self.world.nodes:
            for entity in node.entities().values():
                assert entity.lock is None, f"{entity.instance_id} is never released"
                assert (entity.inbox, entity.delayed) == ([], {})
