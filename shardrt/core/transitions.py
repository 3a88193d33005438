"""How an entry changes a partition. Recovery runs exactly this, and drops the effects.

Every handler is a pure function of the state and the entry: no clock, no chance, no code of
users. An entry that does not fit the state is a bug or a damaged journal, so handlers assert
rather than cope: the partition stops and others go on.
"""

from __future__ import annotations

from typing import Any, ClassVar

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.entity import is_entity_id
from shardrt.core.ids import derived_id
from shardrt.core.rewinds import Rewinds
from shardrt.core.state import START_TIMER, Child, Instance, Leaving, Pending
from shardrt.core.trace_context import follow
from shardrt.core.work import Canceled, Completed, Continued, Failed, Parked

_RUNNING = h.Status.RUNNING
"""Bound, for a member of an enumeration is slow to look up."""


class Transitions(Rewinds):
    """The handlers, one per kind of entry and of action."""

    __slots__ = ()

    def apply(self, entry: e.Entry) -> None:
        """Change the state as the entry says."""
        self._ENTRIES[type(entry)](self, entry)

    # -- instances ---------------------------------------------------------------------------

    def _created(self, entry: e.Created) -> None:
        instance = Instance(
            instance_id=entry.instance_id,
            execution_id=entry.execution_id,
            name=entry.name,
            version=entry.version,
            input=entry.input,
            tags=entry.tags,
            created_at=entry.at,
            updated_at=entry.at,
            created_by=entry.created_by,
        )
        if entry.trace:
            instance.trace = follow(entry.trace, entry.instance_id, entry.execution_id)
        if entry.start_at is not None and entry.start_at > entry.at:
            instance.timers[START_TIMER] = entry.start_at
            self.timers.add(entry.start_at, entry.instance_id, START_TIMER)
        # A late repetition of the request must not create it again, whatever became of it.
        self._settle(entry.created_by, entry.at)
        self._install(instance, entry.at)
        self._put_last(instance)

    def _deleted(self, entry: e.Deleted) -> None:
        if entry.instance_id in self.entities:
            self._entity_deleted(entry)
            return
        instance = self.instances.pop(entry.instance_id)
        assert instance.is_final, f"{entry.instance_id} is purged but has not ended"
        self._settle(entry.origin, entry.at)
        self.dirty.pop(entry.instance_id, None)
        self.deleted[entry.instance_id] = None
        self.tombstones[entry.instance_id] = None

    # -- arrivals ----------------------------------------------------------------------------

    def _arrived(self, entry: e.Arrived) -> None:
        event = entry.event
        assert isinstance(event, (h.TaskCompleted, h.TaskFailed))
        instance = self.instances[entry.instance_id]
        pending = instance.pending.pop(event.task_id)
        if pending.limit is not None:
            self._return_slot(instance, event.task_id, pending)
        self._arrive(instance, event, event.at)

    def _retried(self, entry: e.Retried) -> None:
        instance = self.instances[entry.instance_id]
        pending = instance.pending[entry.task_id]
        self._return_slot(instance, entry.task_id, pending)
        pending.granted = False
        pending.attempt += 1
        pending.retry_at = entry.retry_at
        pending.heartbeat = entry.failure.heartbeat
        self.timers.add(entry.retry_at, entry.instance_id, entry.task_id)
        self._touch(instance, entry.at)

    def _fired(self, entry: e.Fired) -> None:
        entity = self.entities.get(entry.instance_id)
        if entity is not None:
            self._entity_fired(entity, entry)
            return
        instance = self.instances[entry.instance_id]
        for task_id in entry.task_ids:
            if task_id in instance.timers:
                del instance.timers[task_id]
                if task_id != START_TIMER:
                    self.tally.timers_fired += 1
                    instance.inbox.append(h.TimerFired(task_id, entry.at))
            elif task_id in instance.pending:
                self._activity_due(instance, task_id, entry.at)
            else:
                child = instance.children[task_id]
                child.retry_at = None
                self._start_child(instance, task_id, child)
        self._touch(instance, entry.at)
        self._wake(instance)

    def _activity_due(self, instance: Instance, task_id: int, at: int) -> None:
        """Start the next attempt, or give up if the time for all of them is over."""
        pending = instance.pending[task_id]
        if pending.deadline is None or at < pending.deadline:
            pending.retry_at = None
            self._begin_attempt(instance, task_id, pending)
            return
        seconds = (pending.deadline - pending.first_at) / 1e6
        failure = h.Failure(
            type="TimeoutError",
            message=f"all attempts together did not end within {seconds:g} s",
            heartbeat=pending.heartbeat,
        )
        self._return_slot(instance, task_id, pending)
        del instance.pending[task_id]
        self._cancel_activity(instance, task_id)
        instance.inbox.append(h.TaskFailed(task_id, at, failure))

    def _raised(self, entry: e.Raised) -> None:
        instance = self.instances[entry.instance_id]
        self.tally.events_raised += 1
        self._settle(entry.origin, entry.event.at)
        self._arrive(instance, entry.event, entry.event.at)

    # -- a turn of the code ------------------------------------------------------------------

    def _stepped(self, entry: e.Stepped) -> None:
        at, consumed, actions, outcome = entry.at, entry.consumed, entry.actions, entry.outcome
        instance = self.instances[entry.instance_id]
        self._touch(instance, at)
        if type(outcome) is Parked:
            instance.parked = outcome.reason
            self.parked.setdefault(instance.instance_id, "")
            return
        tail, inbox = instance.tail, instance.inbox
        tail.append(h.OrchestratorStarted(at))
        if consumed == len(inbox):
            tail += inbox
            inbox.clear()
        else:
            tail += inbox[:consumed]
            del inbox[:consumed]
        tail += actions
        instance.history_length += 1 + consumed + len(actions)
        instance.turn += 1
        if instance.parked:
            self._unpark(instance)
        if instance.status is not _RUNNING and not instance.suspended:
            instance.status = _RUNNING
        if entry.custom_status:
            (instance.custom_status,) = entry.custom_status
        for action in actions:
            self._ACTIONS[type(action)](self, instance, action, at)
        if outcome is not None:
            self._conclude(instance, outcome, at)
        elif inbox:
            self._wake(instance)

    def _conclude(
        self, instance: Instance, outcome: Completed | Failed | Continued | Canceled, at: int
    ) -> None:
        match outcome:
            case Completed(result):
                self._finish(instance, at, h.Status.COMPLETED, output=result)
            case Failed(failure):
                self._finish(instance, at, h.Status.FAILED, failure=failure)
            case Continued():
                self._continue_as_new(instance, outcome, at)
            case Canceled(reason):
                self._end_canceled(instance, at, reason)

    # -- actions -----------------------------------------------------------------------------

    def _schedule(self, instance: Instance, action: h.TaskScheduled, at: int) -> None:
        retry, limit = action.retry, action.limit
        pending = Pending(
            action.name,
            action.input,
            at,
            1,
            retry,
            action.timeout,
            None,
            action.speculative,
            h.NULL,
            limit,
        )
        instance.pending[action.task_id] = pending
        if retry is not None and (deadline := pending.deadline) is not None:
            self.timers.add(deadline, instance.instance_id, action.task_id)
        if limit is None:
            self._run(instance, action.task_id, pending)
        else:
            self._begin_attempt(instance, action.task_id, pending)

    def _cancel(self, instance: Instance, action: h.TaskCanceled, at: int) -> None:
        del at
        if (pending := instance.pending.pop(action.task_id, None)) is not None:
            self._return_slot(instance, action.task_id, pending)
            self._cancel_activity(instance, action.task_id)
        elif (child := instance.children.pop(action.task_id, None)) is not None:
            self._call_off(instance, action, child)
        else:
            self._give_up(instance, action.task_id)

    def _call_off(self, instance: Instance, action: h.TaskCanceled, child: Child) -> None:
        """End a child that its parent waits for no more.

        If that is because the parent itself was cancelled in this turn, the child may clean up.
        It is remembered until it has ended, so that terminating the parent ends it, too.
        """
        request = _cancel_in_turn(instance) if action.cooperative else None
        if request is None:
            self._terminate_child(instance, action.task_id, child, "canceled by its parent")
            return
        ids = (child.instance_id, instance.execution_id, action.task_id)
        self._post(m.CancelChild(*ids, request.reason))
        if child.retry_at is None:  # otherwise its last attempt has ended
            instance.leaving[action.task_id] = Leaving(child.instance_id, instance.execution_id)

    def _create_timer(self, instance: Instance, action: h.TimerCreated, at: int) -> None:
        del at
        self.tally.timers_created += 1
        instance.timers[action.task_id] = action.fire_at
        self.timers.add(action.fire_at, instance.instance_id, action.task_id)

    def _cancel_timer(self, instance: Instance, action: h.TimerCanceled, at: int) -> None:
        del at
        instance.timers.pop(action.task_id, None)

    def _create_child(
        self, instance: Instance, action: h.SubOrchestrationInstanceCreated, at: int
    ) -> None:
        child = Child(instance_id=action.instance_id, first_at=at, retry=action.retry)
        child.name, child.version, child.input = action.name, action.version, action.input
        instance.children[action.task_id] = child
        self._start_child(instance, action.task_id, child)
        if action.retry is None:
            child.name, child.version, child.input = "", None, h.NULL

    def _send_event(self, instance: Instance, action: h.EventSent, at: int) -> None:
        del at
        self._post(m.DeliverEvent(action.instance_id, action.name, action.data, instance.trace))

    def _mark(self, instance: Instance, action: h.PatchMarked, at: int) -> None:
        """History has it: that is all."""

    # -- the life of an instance, from outside -------------------------------------------------

    def _terminated(self, entry: e.Terminated) -> None:
        self._settle(entry.origin, entry.at)
        instance = self.instances[entry.instance_id]
        self._terminate(instance, entry.at, entry.reason, recursive=entry.recursive)

    def _cancel_requested(self, entry: e.CancelRequested) -> None:
        self._settle(entry.origin, entry.at)
        instance = self.instances[entry.instance_id]
        self._cancel_from_outside(instance, entry.at, entry.reason)

    def _suspended(self, entry: e.Suspended) -> None:
        self._settle(entry.origin, entry.at)
        instance = self.instances[entry.instance_id]
        instance.suspended = True
        instance.status = h.Status.SUSPENDED
        instance.reason = entry.reason
        self._withdraw(instance.instance_id)
        self._record(instance, h.ExecutionSuspended(entry.at, entry.reason))
        self._touch(instance, entry.at)

    def _resumed(self, entry: e.Resumed) -> None:
        self._settle(entry.origin, entry.at)
        instance = self.instances[entry.instance_id]
        instance.suspended = False
        instance.status = h.Status.RUNNING if instance.has_begun else h.Status.PENDING
        instance.reason = ""
        self._record(instance, h.ExecutionResumed(entry.at, entry.reason))
        self._want_again(instance)
        self._touch(instance, entry.at)
        self._wake(instance)

    # -- messages ----------------------------------------------------------------------------

    def _received(self, entry: e.Received) -> None:
        self._count_in(entry)
        self._take_message(entry)

    def _count_in(self, entry: e.Received | e.PutAside) -> None:
        last = self.state.received.get(entry.source, 0)
        assert entry.seq == last + 1, f"stream from {entry.source} jumps {last} → {entry.seq}"
        self.state.received[entry.source] = entry.seq
        self.confirms[entry.source] = entry.seq

    def _take_message(self, entry: e.Received) -> None:
        match entry.message:
            case m.StartChild():
                self._child_start(entry.message, entry)
            case m.ChildEnded():
                self._child_ended(entry.message, entry.at, entry.retry_at)
            case m.DeliverEvent(instance_id, name, data):
                instance = self.instances.get(instance_id)
                if instance is not None and not instance.is_final:
                    self.tally.events_raised += 1
                    self._arrive(instance, h.EventRaised(entry.at, name, data), entry.at)
            case m.TerminateChild() | m.CancelChild():
                self._end_child(entry.message, entry.at)
            case m.RewindChild():
                self._child_rewind(entry.message, entry)
            case m.SlotWanted() | m.SlotGranted() | m.SlotReturned():
                self._received_of_limits(entry.message, entry.at)
            case _:
                self._received_of_entities(entry)

    def _end_child(self, message: m.TerminateChild | m.CancelChild, at: int) -> None:
        instance = self.instances.get(message.instance_id)
        if instance is None or instance.is_final or instance.parent is None:
            return
        parent = instance.parent
        caller = (message.parent_execution_id, message.task_id)
        if (parent.execution_id, parent.task_id) != caller:
            return
        if type(message) is m.TerminateChild:
            self._terminate(instance, at, message.reason, recursive=True)
        elif not instance.cancel_requested:
            self._cancel_from_outside(instance, at, message.reason)

    def _child_rewind(self, message: m.RewindChild, entry: e.Received) -> None:
        child = self._called_before(message)
        if child is None:
            self._child_start(_start_of(message), entry)
        elif child.status is h.Status.FAILED:
            pass  # an entry of its own follows: `Rewound`
        else:
            self._adopt(child, message, entry.at)

    def _child_start(self, message: m.StartChild, entry: e.Received) -> None:
        parent, at = message.parent, entry.at
        old = self.instances.get(message.instance_id)
        if is_entity_id(message.instance_id) or (old is not None and not old.is_final):
            failure = h.Failure(
                type="InstanceExists", message=f"instance {message.instance_id!r} is running"
            )
            self._post(
                m.ChildEnded(
                    parent.instance_id,
                    parent.execution_id,
                    parent.task_id,
                    message.attempt,
                    h.Status.FAILED,
                    failure=failure,
                )
            )
            return
        # A parent may use a task id again, so only the message itself tells executions apart.
        execution_id = derived_id(parent.execution_id, entry.source, entry.seq)
        instance = Instance(
            instance_id=message.instance_id,
            execution_id=execution_id,
            name=message.name,
            version=message.version,
            input=message.input.copy(),  # not the frame it came in
            parent=parent,
            attempt=message.attempt,
            created_at=at,
            updated_at=at,
        )
        if message.trace:
            call = follow(message.trace, parent.execution_id, parent.task_id)
            instance.trace = follow(call, message.instance_id, execution_id)
        self._install(instance, at)

    def _child_ended(self, message: m.ChildEnded, at: int, retry_at: int | None) -> None:
        found = self.child_of(message)
        if found is None:
            self._child_left(message)
            return
        instance, child = found
        self._touch(instance, at)
        if retry_at is not None:
            child.attempt += 1
            child.retry_at = retry_at
            self.timers.add(retry_at, instance.instance_id, message.task_id)
            return
        del instance.children[message.task_id]
        ended: h.Arrival
        if message.status is h.Status.COMPLETED:
            ended = h.SubOrchestrationInstanceCompleted(message.task_id, at, message.result)
        else:
            failure = message.failure or h.Failure(type="SubOrchestrationFailed")
            ended = h.SubOrchestrationInstanceFailed(message.task_id, at, failure)
        self._arrive(instance, ended, at)

    def _child_left(self, message: m.ChildEnded) -> None:
        """Forget a child that was cancelled with its parent: nobody waits for how it ends."""
        instance = self.instances.get(message.instance_id)
        if instance is None:
            return
        left = instance.leaving.get(message.task_id)
        if left is not None and left.execution_id == message.execution_id:
            del instance.leaving[message.task_id]
            self.dirty[instance.instance_id] = None

    def child_of(self, message: m.ChildEnded) -> tuple[Instance, Child] | None:
        """Return the parent and its child, if that execution still waits for that attempt."""
        instance = self.instances.get(message.instance_id)
        if instance is None or instance.execution_id != message.execution_id:
            return None
        child = instance.children.get(message.task_id)
        if child is None or child.attempt != message.attempt or child.retry_at is not None:
            return None
        return instance, child

    def _acknowledged(self, entry: e.Acknowledged) -> None:
        lane = self.state.lanes[entry.destination]
        assert lane.acknowledged < entry.last <= lane.last, f"{entry} does not fit {lane.last}"
        del lane.messages[: entry.last - lane.acknowledged]
        lane.acknowledged = entry.last

    # -- the partition itself ------------------------------------------------------------------

    def _taken(self, entry: e.Taken) -> None:
        self.state.epoch = entry.epoch

    def _forgot(self, entry: e.Forgot) -> None:
        for client in entry.clients:
            del self.state.sessions[client]

    _ENTRIES: ClassVar[dict[type, Any]] = {
        e.Taken: _taken,
        e.Created: _created,
        e.Arrived: _arrived,
        e.Retried: _retried,
        e.Fired: _fired,
        e.Raised: _raised,
        e.Stepped: _stepped,
        e.Received: _received,
        e.Acknowledged: _acknowledged,
        e.Terminated: _terminated,
        e.CancelRequested: _cancel_requested,
        e.Suspended: _suspended,
        e.Resumed: _resumed,
        e.Rewound: Rewinds.rewound,
        e.Deleted: _deleted,
        e.Forgot: _forgot,
        **Rewinds.ENTITY_ENTRIES,
    }

    _ACTIONS: ClassVar[dict[type, Any]] = {
        h.TaskScheduled: _schedule,
        h.TaskCanceled: _cancel,
        h.TimerCreated: _create_timer,
        h.TimerCanceled: _cancel_timer,
        h.SubOrchestrationInstanceCreated: _create_child,
        h.EventSent: _send_event,
        h.PatchMarked: _mark,
        **Rewinds.ENTITY_ACTIONS,
    }


def _cancel_in_turn(instance: Instance) -> h.CancelRequested | None:
    """Return the request to cancel that the code was given in its newest turn, if it was."""
    for event in reversed(instance.tail):
        if isinstance(event, h.CancelRequested):
            return event
        if isinstance(event, h.OrchestratorStarted):
            return None
    return None


def _start_of(message: m.RewindChild) -> m.StartChild:
    return m.StartChild(
        message.instance_id,
        message.name,
        message.input,
        message.parent,
        message.version,
        message.attempt,
        message.trace,
    )
