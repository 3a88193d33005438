"""Clients' requests: which are applied, which are repetitions, and which are refused.

A refused request has changed nothing. A repeated one (same `Origin`) is answered as it was the
first time, without being applied again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from shardrt.core import entries as e, history as h, messages as m, requests as r
from shardrt.core.effects import Reply
from shardrt.core.entity import is_entity_id, name_and_key
from shardrt.core.ground import started_of
from shardrt.core.ids import derived_id
from shardrt.core.quarantine import Quarantine
from shardrt.core.retry import retry_at
from shardrt.core.rewinding import plan_of
from shardrt.core.timers import DUE_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.core.entity import Entity, EntityWork
    from shardrt.core.state import Instance, PartitionState
    from shardrt.core.work import WorkItem

INBOX_EVENTS_MAX = 100_000
"""More undelivered arrivals than this and clients' events are refused."""


class Answering(Quarantine):
    """The part of a partition that talks to clients."""

    __slots__ = (
        "entities_out",
        "entries",
        "out",
    )

    def __init__(self, state: PartitionState) -> None:
        super().__init__(state)
        self.entries: list[e.Entry] = []
        """Written since the last seal."""
        self.out: dict[str, WorkItem] = {}
        """Work items handed out, by instance; an execution has at most one."""
        self.entities_out: dict[str, EntityWork] = {}
        """The work of each entity that was handed out last, unless it has come back."""

    def _write(self, entry: e.Entry) -> None:
        self._ENTRIES[type(entry)](self, entry)
        self.entries.append(entry)

    def request(
        self, instance_id: str, request: r.Request, origin: r.Origin, now: int, to: object
    ) -> None:
        """Take a client's request. `to` comes back with the answer."""
        if instance_id in self.quarantined:
            self._answer_quarantined(instance_id, request, origin, now, to)
            return
        self._REQUESTS[type(request)](self, instance_id, request, origin, now, to)

    def _answer_quarantined(
        self, instance_id: str, request: r.Request, origin: r.Origin, now: int, to: object
    ) -> None:
        found = self.quarantined_snapshot(instance_id)
        if isinstance(request, r.Get):
            self._reply(to, found)
        elif isinstance(request, r.GetEntity):
            self._reply(to, quarantined_entity(found))
        elif isinstance(request, r.Purge) and self.is_applied(origin):
            self._reply(to, r.Purged(1))
        elif isinstance(request, r.Purge) and request.force:
            self._write(e.Removed(now, instance_id, origin))
            self._take_up(instance_id, now)
            self._reply(to, r.Purged(1))
        else:
            self._refuse(to, "InstanceQuarantined", f"instance {instance_id!r} is {found.reason}")

    def quarantined_snapshot(self, instance_id: str) -> r.Snapshot:
        """Return what can be told of an instance that cannot be read."""
        found = self.quarantined[instance_id]
        waiting = len(self.state.aside.get(instance_id, ()))
        if not waiting:
            return found
        reason = f"{found.reason}; {waiting} messages wait for it"
        return msgspec.structs.replace(found, reason=reason)

    def _take_up(self, instance_id: str, now: int, draw: float = 0.0) -> None:
        while instance_id in self.state.aside:
            message = self.state.aside[instance_id][0].message
            self._write(e.TakenUp(now, instance_id, self._retry_child(message, now, draw)))

    def _retry_child(self, message: m.Message, now: int, draw: float) -> int | None:
        """Return when a child whose end a message tells is started again, if it is."""
        if not isinstance(message, m.ChildEnded) or message.status is h.Status.COMPLETED:
            return None
        found = self.child_of(message)
        if found is None or message.failure is None:
            return None
        _, child = found
        return retry_at(
            child.retry,
            message.failure,
            attempt=child.attempt,
            first_at=child.first_at,
            now=now,
            draw=draw,
        )

    def _reply(self, to: object, result: r.Result | r.Refusal | None) -> None:
        self.effects.append(Reply(to, result))

    def _refuse(self, to: object, code: str, message: str) -> None:
        self._reply(to, r.Refusal(code, message))

    def is_applied(self, origin: r.Origin) -> bool:
        """Whether this very request was applied before."""
        session = self.state.sessions.get(origin.client)
        return session is not None and (origin.seq in session.applied or origin.seq < session.low)

    def _start(
        self, instance_id: str, start: r.Start, origin: r.Origin, now: int, to: object
    ) -> None:
        execution_id = derived_id(origin.client, origin.seq, instance_id)
        if self.is_applied(origin):
            self._reply(to, r.Started(instance_id, execution_id))
            return
        if is_entity_id(instance_id):
            self._refuse(to, "InputInvalid", f"{instance_id!r} is the id of an entity")
            return
        old = self.instances.get(instance_id)
        if old is not None:
            if _is_same(old.created_by, origin):
                self._reply(to, r.Started(instance_id, execution_id))
                return
            if start.on_conflict == "return":
                self._reply(to, r.Started(instance_id, old.execution_id, created=False))
                return
            if start.on_conflict != "restart" or not old.is_final:
                state = "has ended" if old.is_final else "is open"
                self._refuse(
                    to, "InstanceExists", f"instance {instance_id!r} exists already and {state}"
                )
                return
        if start.start_at is not None and start.start_at > DUE_MAX:
            self._refuse(to, "InputInvalid", f"start_at is too late: {start.start_at}")
            return
        self._create(instance_id, start, execution_id, origin, now)
        self._reply(to, r.Started(instance_id, execution_id))

    def _create(
        self, instance_id: str, start: r.Start, execution_id: str, origin: r.Origin, now: int
    ) -> None:
        created = e.Created(
            now,
            instance_id,
            execution_id,
            start.name,
            start.input.copy(),
            start.version,
            start.tags,
            start.start_at,
            origin,
            start.trace,
        )
        self._write(created)

    def _open(
        self, instance_id: str, origin: r.Origin, to: object, *, final: bool = False
    ) -> Instance | None:
        """Return the instance a request is about, or answer why the request is not applied."""
        if self.is_applied(origin):
            self._reply(to, r.Done())
            return None
        instance = self.instances.get(instance_id)
        if instance is None:
            self._refuse(to, "InstanceNotFound", f"there is no instance {instance_id!r}")
        elif instance.is_final and not final:
            message = f"instance {instance_id!r} has ended: {instance.status}"
            self._refuse(to, "InstanceFinished", message)
        elif final and not instance.is_final:
            message = f"instance {instance_id!r} has not ended: {instance.status}"
            self._refuse(to, "InstanceNotFinished", message)
        else:
            return instance
        return None

    def _raise(
        self, instance_id: str, request: r.Raise, origin: r.Origin, now: int, to: object
    ) -> None:
        instance = self._open(instance_id, origin, to)
        if instance is None:
            return
        if len(instance.inbox) >= INBOX_EVENTS_MAX:
            message = f"instance {instance_id!r} has {len(instance.inbox)} undelivered events"
            self._reply(to, r.Refusal("Overloaded", message, 1.0))
            return
        event = h.EventRaised(now, request.name, request.data.copy())
        self._write(e.Raised(instance_id, event, origin, request.trace))
        self._reply(to, r.Done())

    def _terminate_request(
        self, instance_id: str, request: r.Terminate, origin: r.Origin, now: int, to: object
    ) -> None:
        if self._open(instance_id, origin, to) is not None:
            self._write(e.Terminated(now, instance_id, request.reason, request.recursive, origin))
            self._reply(to, r.Done())

    def _cancel_request(
        self, instance_id: str, request: r.Cancel, origin: r.Origin, now: int, to: object
    ) -> None:
        if is_entity_id(instance_id):
            self._refuse(to, "InputInvalid", f"{instance_id!r} is an entity: it cannot be canceled")
            return
        instance = self._open(instance_id, origin, to)
        if instance is not None:
            if not instance.cancel_requested:
                self._write(e.CancelRequested(now, instance_id, request.reason, origin))
            self._reply(to, r.Done())

    def _suspend(
        self, instance_id: str, request: r.Suspend, origin: r.Origin, now: int, to: object
    ) -> None:
        instance = self._open(instance_id, origin, to)
        if instance is not None:
            if not instance.suspended:
                self._write(e.Suspended(now, instance_id, request.reason, origin))
            self._reply(to, r.Done())

    def _resume(
        self, instance_id: str, request: r.Resume, origin: r.Origin, now: int, to: object
    ) -> None:
        instance = self._open(instance_id, origin, to)
        if instance is not None:
            if instance.suspended:
                self._write(e.Resumed(now, instance_id, request.reason, origin))
            elif instance.parked:
                self.parked[instance_id] = ""  # should it be parked again, that is news
                self._wake(instance)  # its code may fit by now
            self._reply(to, r.Done())

    def _restart(
        self, instance_id: str, request: r.Restart, origin: r.Origin, now: int, to: object
    ) -> None:
        execution_id = derived_id(origin.client, origin.seq, instance_id)
        old = self.instances.get(instance_id)
        if self.is_applied(origin) or (old is not None and _is_same(old.created_by, origin)):
            self._reply(to, r.Started(instance_id, execution_id))
            return
        instance = self._open(instance_id, origin, to, final=True)
        if instance is not None:
            start = r.Start(
                instance.name,
                instance.input,
                instance.version,
                instance.tags,
                trace=request.trace,
            )
            self._create(instance_id, start, execution_id, origin, now)
            self._reply(to, r.Started(instance_id, execution_id))

    def _purge(
        self, instance_id: str, request: r.Purge, origin: r.Origin, now: int, to: object
    ) -> None:
        entity = self.entities.get(instance_id)
        if self.is_applied(origin):
            self._reply(to, r.Purged(1))
        elif entity is not None and entity.limiter is not None and request.force:
            self._write(e.Deleted(now, instance_id, origin))
            self._reply(to, r.Purged(1))
        elif entity is not None:
            self._purge_entity(entity, origin, now, to)
        elif instance_id not in self.instances:
            self._reply(to, r.Purged(0))
        elif (instance := self._open(instance_id, origin, to, final=True)) is None:
            pass  # refused
        elif request.execution_id not in {"", instance.execution_id}:
            self._reply(to, r.Purged(0))
        else:
            self.out.pop(instance_id, None)
            self._write(e.Deleted(now, instance_id, origin))
            self._reply(to, r.Purged(1))

    def _purge_entity(self, entity: Entity, origin: r.Origin, now: int, to: object) -> None:
        if not entity.is_empty:
            message = f"entity {entity.instance_id!r} has a state, is locked, or has work to do"
            self._refuse(to, "InstanceNotFinished", message)
            return
        self.entities_out.pop(entity.instance_id, None)
        self._write(e.Deleted(now, entity.instance_id, origin))
        self._reply(to, r.Purged(1))

    def _rewind(
        self, instance_id: str, request: r.Rewind, origin: r.Origin, now: int, to: object
    ) -> None:
        """Take one that the whole history comes with; see `rewind`."""
        self.rewind(instance_id, request, (), origin, now, to)

    def rewind(
        self,
        instance_id: str,
        request: r.Rewind,
        history: Sequence[h.HistoryEvent],
        origin: r.Origin,
        now: int,
        to: object,
    ) -> None:
        """Take a request to rewind, with the whole history if the instance has failed."""
        if self.is_applied(origin):
            self._reply(to, r.Done())
            return
        instance = self.instances.get(instance_id)
        if instance is None:
            self._refuse(to, "InstanceNotFound", f"there is no instance {instance_id!r}")
        elif instance.status is not h.Status.FAILED:
            message = f"instance {instance_id!r} has not failed: {instance.status}"
            self._refuse(to, "InstanceNotFailed", message)
        else:
            self._write_rewound(instance, history, now, reason=request.reason, origin=origin)
            self._reply(to, r.Done())

    def _write_rewound(  # noqa: PLR0913 - what may come with it
        self,
        instance: Instance,
        history: Sequence[h.HistoryEvent],
        now: int,
        *,
        parent: h.Parent | None = None,
        attempt: int = 1,
        reason: str = "",
        origin: r.Origin | None = None,
    ) -> None:
        # A history that cannot be read any more leaves only its beginning.
        plan = plan_of(history or [started_of(instance)], instance.inbox)
        rewound = e.Rewound(
            now,
            instance.instance_id,
            derived_id(instance.execution_id, "rewound"),
            plan.history,
            plan.inbox,
            plan.orphans,
            parent,
            attempt,
            reason,
            origin,
        )
        self._write(rewound)

    def _get(
        self, instance_id: str, request: r.Get, origin: r.Origin, now: int, to: object
    ) -> None:
        del request, origin, now
        instance = self.instances.get(instance_id)
        self._reply(to, None if instance is None else self.snapshot(instance))

    def _wait(
        self, instance_id: str, request: r.Wait, origin: r.Origin, now: int, to: object
    ) -> None:
        del request, origin, now
        instance = self.instances.get(instance_id)
        if instance is None:
            self._refuse(to, "InstanceNotFound", f"there is no instance {instance_id!r}")
        elif instance.is_final:
            self._reply(to, self.snapshot(instance))
        else:
            self.waiters.setdefault(instance_id, []).append(to)

    _REQUESTS: ClassVar[dict[type, Any]] = {
        r.Start: _start,
        r.Raise: _raise,
        r.Terminate: _terminate_request,
        r.Cancel: _cancel_request,
        r.Suspend: _suspend,
        r.Resume: _resume,
        r.Rewind: _rewind,
        r.Restart: _restart,
        r.Purge: _purge,
        r.Get: _get,
        r.Wait: _wait,
    }


def quarantined_entity(found: r.Snapshot) -> r.EntitySnapshot:
    """Return an entity that cannot be read as users see it."""
    name, key = name_and_key(found.instance_id)
    return r.EntitySnapshot(
        instance_id=found.instance_id,
        name=name,
        key=key,
        created_at=found.created_at,
        updated_at=found.updated_at,
        partition=found.partition,
        exists=True,
        reason=found.reason,
    )


def _is_same(created_by: r.Origin | None, origin: r.Origin) -> bool:
    return (
        created_by is not None
        and created_by.client == origin.client
        and created_by.seq == origin.seq
    )
