"""How entries change entities, and how entities and critical sections find to each other.

A critical section asks for its entities in the order of their ids: the request goes to the
first, and whoever is acquired passes it on to the next one, so sections never wait for each
other in a circle. The last one tells the holder. A holder that has heard so releases each
entity itself. One that ends before sends its release along the same way as the request: on
each lane it comes after the request, so it catches up with it and undoes what it did.

Operations of a section are queued apart. The release of a section is after them on its lane,
so they are carried out before it takes effect.
"""

from __future__ import annotations

from typing import Any, ClassVar

from shardrt.core import entity as en, entries as e, history as h, messages as m
from shardrt.core.effects import Reply
from shardrt.core.entity import Delayed, Entity, Lock, LockRequest, Operation
from shardrt.core.ids import derived_id
from shardrt.core.requests import EntityReply, Origin
from shardrt.core.slots import Slots
from shardrt.core.state import Instance, Section
from shardrt.core.timers import DUE_MAX


class EntityTransitions(Slots):
    """The handlers that concern entities, and instances that ask something of them."""

    __slots__ = ()

    # -- entities ------------------------------------------------------------------------------

    def _entity(self, instance_id: str, at: int) -> Entity:
        """Return an entity to be changed; it comes to be when something is asked of it."""
        entity = self.entities.get(instance_id)
        if entity is None:
            name, _ = en.name_and_key(instance_id)
            entity = Entity(instance_id=instance_id, name=name, created_at=at, updated_at=at)
            self.entities[instance_id] = entity
            if instance_id in self.tombstones:
                del self.tombstones[instance_id]
                self.deleted.pop(instance_id, None)
        entity.updated_at = max(entity.updated_at, at)
        self.dirty[instance_id] = None
        return entity

    def _entity_deleted(self, entry: e.Deleted) -> None:
        entity = self.entities[entry.instance_id]
        if entity.limiter is not None:
            self._settle(entry.origin, entry.at)
            self._limiter_reset(entity, entity.limiter, entry.at)
            return
        del self.entities[entry.instance_id]
        assert entity.is_empty, f"{entry.instance_id} is purged but not empty"
        self._settle(entry.origin, entry.at)
        self.entities_ready.pop(entry.instance_id, None)
        self.dirty.pop(entry.instance_id, None)
        self.deleted[entry.instance_id] = None
        self.tombstones[entry.instance_id] = None

    def _go_on(self, entity: Entity) -> None:
        """Do what needs no code: give a free entity to whom it is promised next."""
        lock = entity.lock
        if lock is not None and lock.released and not lock.inbox:
            self._unlock(entity, lock)
        if entity.lock is None and entity.inbox and isinstance(entity.inbox[0], LockRequest):
            self._acquire(entity, entity.inbox[0])
        if entity.has_news():
            self.entities_ready[entity.instance_id] = None
        else:
            self.entities_ready.pop(entity.instance_id, None)

    def _acquire(self, entity: Entity, request: LockRequest) -> None:
        del entity.inbox[0]
        entity.lock = Lock(request)
        entity.turn += 1
        entities, following = request.entities, request.index + 1
        holder, section = request.holder, request.section
        if following < len(entities):
            self._post(m.LockEntity(entities[following], section, holder, entities, following))
        else:
            self._post(m.LockGranted(holder.instance_id, holder.execution_id, section))

    def _unlock(self, entity: Entity, lock: Lock) -> None:
        entity.lock = None
        entity.turn += 1
        following = lock.request.index + 1
        if lock.chain and following < len(lock.request.entities):
            self._post(m.UnlockEntity(lock.request.entities[following], lock.section, chain=True))

    # -- what entities are asked ---------------------------------------------------------------

    def _received_of_entities(self, entry: e.Received) -> None:
        message, at = entry.message, entry.at
        match message:
            case m.EntityAnswered():
                self._entity_answered(message, at)
            case m.LockGranted():
                self._lock_granted(message, at)
            case m.StartInstance():
                self._start_instance(message, entry)
            case m.UnlockEntity():
                self._unlock_asked(message, at)
            case m.CallEntity():
                self._called(message, at)
            case m.SignalEntity(instance_id, name, payload, fire_at):
                if en.is_entity_id(instance_id):
                    self._signal(instance_id, Operation(name, payload), fire_at, at)
            case m.LockEntity():
                if en.is_entity_id(message.instance_id):
                    self._lock_asked(message, at)
            case _:
                raise AssertionError(f"nobody takes {message}")

    def _asked(self, entry: e.EntityAsked) -> None:
        self._settle(entry.origin, entry.at)
        origin = entry.origin if entry.waits else None
        operation = Operation(entry.name, entry.input, origin=origin)
        self._signal(entry.instance_id, operation, entry.fire_at, entry.at)

    def _signal(self, instance_id: str, operation: Operation, fire_at: int | None, at: int) -> None:
        entity = self._entity(instance_id, at)
        if fire_at is not None and fire_at > at:
            due = min(fire_at, DUE_MAX)
            entity.numbers += 1
            entity.delayed[entity.numbers] = Delayed(due, operation)
            self.timers.add(due, instance_id, entity.numbers)
            return
        entity.inbox.append(operation)
        self._go_on(entity)

    def _called(self, message: m.CallEntity, at: int) -> None:
        operation = Operation(message.name, message.input, message.caller)
        if not en.is_entity_id(message.instance_id):
            self._refuse_call(message, "InputInvalid", "is not the id of an entity")
        elif not message.section:
            self._signal(message.instance_id, operation, None, at)
        else:
            entity = self._entity(message.instance_id, at)
            lock = entity.lock
            if lock is None or lock.section != message.section or lock.released:
                self._refuse_call(message, "LockViolation", "is not locked by the caller")
            else:
                lock.inbox.append(operation)
                self._go_on(entity)

    def _refuse_call(self, message: m.CallEntity, kind: str, reason: str) -> None:
        text = f"{message.instance_id!r} {reason}"
        failure = h.Failure(type=kind, message=text, non_retryable=True)
        self._answer_caller(message.caller, en.OperationResult(failure=failure))

    def _entity_fired(self, entity: Entity, entry: e.Fired) -> None:
        if entity.limiter is not None:
            self._limiter_due(entity, entity.limiter, entry.at)
            return
        self._entity(entry.instance_id, entry.at)
        for number in entry.task_ids:
            entity.inbox.append(entity.delayed.pop(number).operation)
        self._go_on(entity)

    def _lock_asked(self, message: m.LockEntity, at: int) -> None:
        entity = self._entity(message.instance_id, at)
        entity.inbox.append(
            LockRequest(message.section, message.holder, message.entities, message.index)
        )
        self._go_on(entity)

    def _unlock_asked(self, message: m.UnlockEntity, at: int) -> None:
        entity = self.entities.get(message.instance_id)
        if entity is None:
            return
        lock = entity.lock
        if lock is not None and lock.section == message.section:
            lock.released = True
            lock.chain = message.chain
        else:
            # Still in the queue: who does not get it has nothing to pass on.
            entity.inbox = [
                item
                for item in entity.inbox
                if not (isinstance(item, LockRequest) and item.section == message.section)
            ]
        self._entity(message.instance_id, at)
        self._go_on(entity)

    # -- a step --------------------------------------------------------------------------------

    def _entity_stepped(self, entry: e.EntityStepped) -> None:
        entity = self._entity(entry.instance_id, entry.at)
        entity.parked = entry.parked
        if entry.parked:
            return
        queue = entity.queue
        done = queue[: len(entry.results)]
        del queue[: len(entry.results)]
        entity.turn += 1
        if entry.state is not None:
            entity.state = entry.state
        for operation, result in zip(done, entry.results, strict=True):
            assert isinstance(operation, Operation), "a lock request is no operation"
            self._answer(entity, operation, result)
        for output in entry.outputs:
            if isinstance(output, en.SignalSent):
                self._post(
                    m.SignalEntity(output.instance_id, output.name, output.input, output.fire_at)
                )
            else:
                self._post(
                    m.StartInstance(output.instance_id, output.name, output.input, output.version)
                )
        self._go_on(entity)

    def _answer(self, entity: Entity, operation: Operation, result: en.OperationResult) -> None:
        if operation.caller is not None:
            self._answer_caller(operation.caller, result)
        if operation.origin is not None:
            self._answer_client(entity, operation.origin, result)

    def _answer_caller(self, to: h.Parent, answer: en.OperationResult) -> None:
        self._post(
            m.EntityAnswered(
                to.instance_id, to.execution_id, to.task_id, answer.result, answer.failure
            )
        )

    def _answer_client(self, entity: Entity, origin: Origin, result: en.OperationResult) -> None:
        answers = [
            each
            for each in entity.answers
            if each.client != origin.client or each.seq >= origin.low
        ]
        answers.append(en.Answered(origin.client, origin.seq, result.result, result.failure))
        entity.answers = answers[-en.ANSWERS_MAX :]
        for to in self.waiters.pop(call_key(entity.instance_id, origin), ()):
            self.effects.append(Reply(to, EntityReply(result.result, result.failure)))

    # -- what instances ask of them ------------------------------------------------------------

    def _call_entity(self, instance: Instance, action: h.EntityOperationCalled, at: int) -> None:
        del at
        instance.calls[action.task_id] = action.instance_id
        caller = h.Parent(instance.instance_id, instance.execution_id, action.task_id)
        self._post(
            m.CallEntity(action.instance_id, action.name, action.input, caller, action.section)
        )

    def _signal_entity(
        self, instance: Instance, action: h.EntityOperationSignaled, at: int
    ) -> None:
        del instance, at
        self._post(m.SignalEntity(action.instance_id, action.name, action.input, action.fire_at))

    def _request_lock(self, instance: Instance, action: h.EntityLockRequested, at: int) -> None:
        del at
        entities = action.entities
        # The order is what keeps sections from waiting for each other for ever.
        assert entities == tuple(sorted(set(entities))), f"{entities} are not in order"
        instance.locks[action.section] = Section(action.task_id, list(entities))
        holder = h.Parent(instance.instance_id, instance.execution_id, action.task_id)
        self._post(m.LockEntity(entities[0], action.section, holder, entities))

    def _send_unlock(self, instance: Instance, action: h.EntityUnlockSent, at: int) -> None:
        del at
        section = instance.locks.get(action.section)
        if section is None or not section.granted or action.instance_id not in section.entities:
            return
        section.entities.remove(action.instance_id)
        if not section.entities:
            del instance.locks[action.section]
        self._post(m.UnlockEntity(action.instance_id, action.section))

    def _give_up(self, instance: Instance, task_id: int) -> None:
        """Stop waiting for an entity: for its answer, or for the lock."""
        if instance.calls.pop(task_id, None) is not None:
            return
        for name, section in instance.locks.items():
            if section.task_id == task_id:
                del instance.locks[name]
                self._release(name, section)
                return

    # -- what they are answered ----------------------------------------------------------------

    def _entity_answered(self, message: m.EntityAnswered, at: int) -> None:
        instance = self._execution(message.instance_id, message.execution_id)
        if instance is None or instance.calls.pop(message.task_id, None) is None:
            return
        event: h.Arrival
        if message.failure is None:
            event = h.EntityOperationCompleted(message.task_id, at, message.result)
        else:
            event = h.EntityOperationFailed(message.task_id, at, message.failure)
        self._arrive(instance, event, at)

    def _lock_granted(self, message: m.LockGranted, at: int) -> None:
        instance = self._execution(message.instance_id, message.execution_id)
        section = None if instance is None else instance.locks.get(message.section)
        if instance is None or section is None:
            return
        assert not section.granted, f"{message.section} was granted before"
        section.granted = True
        self._arrive(instance, h.EntityLockGranted(section.task_id, at), at)

    def _execution(self, instance_id: str, execution_id: str) -> Instance | None:
        instance = self.instances.get(instance_id)
        if instance is None or instance.execution_id != execution_id:
            return None
        return instance

    def _start_instance(self, message: m.StartInstance, entry: e.Received) -> None:
        instance_id = message.instance_id
        old = self.instances.get(instance_id)
        if en.is_entity_id(instance_id) or (old is not None and not old.is_final):
            return
        instance = Instance(
            instance_id=instance_id,
            execution_id=derived_id(instance_id, entry.source, entry.seq),
            name=message.name,
            version=message.version,
            input=message.input,
            created_at=entry.at,
            updated_at=entry.at,
        )
        self._install(instance, entry.at)

    ENTITY_ENTRIES: ClassVar[dict[type, Any]] = {
        e.EntityAsked: _asked,
        e.EntityStepped: _entity_stepped,
    }

    ENTITY_ACTIONS: ClassVar[dict[type, Any]] = {
        h.EntityOperationCalled: _call_entity,
        h.EntityOperationSignaled: _signal_entity,
        h.EntityLockRequested: _request_lock,
        h.EntityUnlockSent: _send_unlock,
    }


def call_key(instance_id: str, origin: Origin) -> str:
    """Return by what those who wait for a client's call are found among the waiters."""
    return f"{instance_id}\x00{origin.client}\x00{origin.seq}"
