"""How attempts come by the slots that their activities are limited by; see `core.limiter`.

Between two attempts there is no slot: it is given back when one fails and wanted anew when the
next one is due. A grant that comes when nobody waits for it any more is dropped, because its
return is already on the way. So it does not matter who ends an activity, how, or when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core import messages as m
from shardrt.core.ground import Ground
from shardrt.core.limiter import Limiter, holder_of, slot_of

if TYPE_CHECKING:
    from shardrt.core.entity import Entity
    from shardrt.core.state import Instance, Pending


class Slots(Ground):
    """The handlers that concern limits: both of those who wait for slots, and of limiters."""

    __slots__ = ()

    def _entity(self, instance_id: str, at: int) -> Entity:
        raise NotImplementedError

    def _execution(self, instance_id: str, execution_id: str) -> Instance | None:
        raise NotImplementedError

    def _begin_attempt(self, instance: Instance, task_id: int, pending: Pending) -> None:
        """Run an attempt, or ask for the slot that it needs."""
        if pending.limit is None:
            self._run(instance, task_id, pending)
            return
        ids = (instance.instance_id, instance.execution_id, task_id, pending.attempt)
        quota = pending.limit
        self._post(m.SlotWanted(quota.limiter, slot_of(*ids), quota.numbers, pending.first_at))

    def _want_again(self, instance: Instance) -> None:
        """Ask again for slots not granted yet: known to a limiter, this changes nothing."""
        for task_id, pending in instance.pending.items():
            if pending.waits_for_slot:
                self._begin_attempt(instance, task_id, pending)

    def _received_of_limits(
        self, message: m.SlotWanted | m.SlotGranted | m.SlotReturned, at: int
    ) -> None:
        match message:
            case m.SlotWanted():
                self._slot_wanted(message, at)
            case m.SlotGranted():
                self._slot_granted(message, at)
            case m.SlotReturned():
                self._slot_returned(message, at)

    def _slot_granted(self, message: m.SlotGranted, at: int) -> None:
        instance = self._execution(message.instance_id, message.execution_id)
        pending = None if instance is None else instance.pending.get(message.task_id)
        if instance is None or pending is None or pending.attempt != message.attempt:
            return
        if pending.waits_for_slot:
            pending.granted = True
            self._touch(instance, at)
            self._run(instance, message.task_id, pending)

    # -- the limiter's side ----------------------------------------------------------------------

    def _slot_wanted(self, message: m.SlotWanted, at: int) -> None:
        entity = self._entity(message.instance_id, at)
        if entity.limiter is None:
            entity.limiter = Limiter()
        entity.limiter.want(message.slot, message.numbers, message.as_of, entity.updated_at)
        self._grant(entity, entity.limiter)

    def _slot_returned(self, message: m.SlotReturned, at: int) -> None:
        entity = self.entities.get(message.instance_id)
        if entity is None or entity.limiter is None:
            return  # a limiter that could not be read was removed by force
        self._entity(message.instance_id, at)
        entity.limiter.give_back(message.slot)
        self._grant(entity, entity.limiter)

    def _limiter_reset(self, entity: Entity, limiter: Limiter, at: int) -> None:
        """Forget who has slots, and go on with those who wait."""
        self._entity(entity.instance_id, at)
        limiter.holders = {}
        self._grant(entity, limiter)

    def _limiter_due(self, entity: Entity, limiter: Limiter, at: int) -> None:
        """Go on when a window has room again, or forget what nobody has used for long."""
        if limiter.is_unused:
            del self.entities[entity.instance_id]
            self.dirty.pop(entity.instance_id, None)
            self.deleted[entity.instance_id] = None
            self.tombstones[entity.instance_id] = None
        else:
            self._entity(entity.instance_id, at)
            self._grant(entity, limiter)

    def _grant(self, entity: Entity, limiter: Limiter) -> None:
        # No grant is ever earlier than one before, also if another owner's clock was ahead.
        due = limiter.due
        for slot in limiter.advance(entity.updated_at):
            self._post(m.SlotGranted(*holder_of(slot)))
        if limiter.due is not None and limiter.due != due:
            self.timers.add(limiter.due, entity.instance_id, 0)
