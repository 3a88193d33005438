"""Entities' part of a partition: clients' requests, and operations handed out and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from shardrt.core import entries as e, requests as r
from shardrt.core.answering import INBOX_EVENTS_MAX, Answering
from shardrt.core.entity import OPERATIONS_MAX, EntityStep, EntityWork, Operation, name_and_key
from shardrt.core.entity_transitions import call_key
from shardrt.core.history import NULL

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.core.entity import Entity
    from shardrt.core.limiter import Limiter
    from shardrt.core.state import PartitionState


class EntityAnswering(Answering):
    """See the module."""

    __slots__ = (
        "_handed_out",
        "stale",
    )

    def __init__(self, state: PartitionState) -> None:
        super().__init__(state)
        self.stale = 0
        """Outcomes and steps dropped because what they belong to has moved on."""
        self._handed_out = 0

    # -- clients -------------------------------------------------------------------------------

    def _signal_request(
        self, instance_id: str, request: r.SignalEntity, origin: r.Origin, now: int, to: object
    ) -> None:
        if not self.is_applied(origin):
            if self._is_full(instance_id, to):
                return
            payload = request.input.copy()
            self._write(
                e.EntityAsked(now, instance_id, request.name, payload, request.fire_at, origin)
            )
        self._reply(to, r.Done())

    def _call_request(
        self, instance_id: str, request: r.CallEntity, origin: r.Origin, now: int, to: object
    ) -> None:
        if self.is_applied(origin):
            self._answer_again(instance_id, origin, to)
        elif not self._is_full(instance_id, to):
            self.waiters[call_key(instance_id, origin)] = [to]
            payload = request.input.copy()
            self._write(
                e.EntityAsked(now, instance_id, request.name, payload, None, origin, waits=True)
            )

    def _is_full(self, instance_id: str, to: object) -> bool:
        entity = self.entities.get(instance_id)
        if entity is None or len(entity.inbox) + len(entity.delayed) < INBOX_EVENTS_MAX:
            return False
        message = f"entity {instance_id!r} has {len(entity.inbox)} operations to do"
        self._reply(to, r.Refusal("Overloaded", message, 1.0))
        return True

    def _answer_again(self, instance_id: str, origin: r.Origin, to: object) -> None:
        """Answer a call that was taken before: now, or once it is done."""
        entity = self.entities.get(instance_id)
        for each in [] if entity is None else entity.answers:
            if (each.client, each.seq) == (origin.client, origin.seq):
                self._reply(to, r.EntityReply(each.result, each.failure))
                return
        if entity is not None and _waits_for(entity, origin):
            self.waiters.setdefault(call_key(instance_id, origin), []).append(to)
            return
        message = f"entity {instance_id!r} has done it, but how it went is forgotten by now"
        self._refuse(to, "AnswerForgotten", message)

    def _get_entity(
        self, instance_id: str, request: r.GetEntity, origin: r.Origin, now: int, to: object
    ) -> None:
        del request, origin, now
        entity = self.entities.get(instance_id)
        if entity is None:
            self._reply(to, None)
        else:
            self._reply(to, entity_snapshot(entity, self.state.partition))

    def _get_slot(
        self, instance_id: str, request: r.GetSlot, origin: r.Origin, now: int, to: object
    ) -> None:
        del origin, now
        entity = self.entities.get(instance_id)
        limiter = None if entity is None else entity.limiter
        self._reply(to, None if limiter is None else slot_snapshot(limiter, request.slot))

    # -- turns of the code ---------------------------------------------------------------------

    def next_entity_work(self, now: int) -> EntityWork | None:
        """Hand out operations to carry out. They must come back by `step_entity`."""
        while self.entities_ready:
            instance_id, _ = self.entities_ready.popitem(last=False)
            entity = self.entities[instance_id]
            out = self.entities_out.get(instance_id)
            if (out is not None and out.turn == entity.turn) or not entity.has_news():
                continue  # `step_entity` wakes it again
            self._handed_out += 1
            work = self.entities_out[instance_id] = EntityWork(
                instance_id,
                f"{self.state.epoch}.{self._handed_out}",
                max(now, entity.updated_at),
                entity.turn,
                entity.name,
                entity.state,
                entity.operations(OPERATIONS_MAX),
            )
            return work
        return None

    def step_entity(self, step: EntityStep) -> bool:
        """Take operations back; return False if they do not count.

        They are discarded, outputs included, if the entity was locked, unlocked or purged since
        they were handed out; those that still are to be carried out are handed out again.
        """
        work = self.entities_out.get(step.instance_id)
        if work is None or work.token != step.token:
            self.stale += 1
            return False
        del self.entities_out[step.instance_id]
        entity = self.entities.get(step.instance_id)
        if entity is None or entity.turn != work.turn:
            self.stale += 1
            return False
        if step.parked:
            if step.parked != entity.parked:
                self._write(e.EntityStepped(work.at, step.instance_id, parked=step.parked))
            # Not merely more in the queue: nothing new could be tried, again and again.
            if len(entity.operations(OPERATIONS_MAX)) > len(work.operations):
                self.entities_ready[step.instance_id] = None
        elif step.results:
            self._write(
                e.EntityStepped(work.at, step.instance_id, step.results, step.state, step.outputs)
            )
        else:
            self.entities_ready[step.instance_id] = None
        return True

    _REQUESTS: ClassVar[dict[type, Any]] = {
        **Answering._REQUESTS,  # noqa: SLF001 - its own
        r.SignalEntity: _signal_request,
        r.CallEntity: _call_request,
        r.GetEntity: _get_entity,
        r.GetSlot: _get_slot,
    }


def _waits_for(entity: Entity, origin: r.Origin) -> bool:
    return any(
        isinstance(each, Operation)
        and each.origin is not None
        and (each.origin.client, each.origin.seq) == (origin.client, origin.seq)
        for each in entity.inbox
    )


def slot_snapshot(limiter: Limiter, slot: str) -> r.SlotSnapshot | None:
    """Return how a slot stands; None if nobody has or wants it."""
    position = 0
    if slot not in limiter.holders:
        if slot not in limiter.waiting:
            return None
        position = 1 + list(limiter.waiting).index(slot)
    return r.SlotSnapshot(
        position=position,
        waiting=len(limiter.waiting),
        holders=len(limiter.holders),
        numbers=limiter.numbers,
        due=limiter.due if limiter.waiting else None,
    )


def entity_snapshot(entity: Entity, partition: int) -> r.EntitySnapshot:
    """Return an entity as users see it."""
    _, key = name_and_key(entity.instance_id)
    lock = entity.lock
    state: list[Raw] = [*entity.state]
    return r.EntitySnapshot(
        instance_id=entity.instance_id,
        name=entity.name,
        key=key,
        created_at=entity.created_at,
        updated_at=entity.updated_at,
        partition=partition,
        exists=bool(state),
        state=state[0] if state else NULL,
        locked_by=None if lock is None else lock.request.holder.instance_id,
        backlog=len(entity.inbox) + (0 if lock is None else len(lock.inbox)),
        reason=entity.parked,
    )
