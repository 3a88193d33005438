"""A partition's state, what is derived from it, and the moves that all transitions share.

Everything here keeps the state and its indexes (ready queue, timers, dirty set) in step, and
notes the effects; which of it happens when is the business of `transitions`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from shardrt.core import history as h, messages as m
from shardrt.core.effects import CancelActivity, Effect, Reply, RunActivity
from shardrt.core.ids import derived_id, partition_of
from shardrt.core.limiter import slot_of
from shardrt.core.requests import Origin, Snapshot
from shardrt.core.state import (
    START_TIMER,
    Child,
    Instance,
    Lane,
    Leaving,
    PartitionState,
    Pending,
    Section,
    Session,
)
from shardrt.core.tally import Tally
from shardrt.core.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msgspec import Raw

    from shardrt.core.work import Continued

_FINAL_OUTCOME = (h.Status.COMPLETED, h.Status.FAILED, h.Status.CANCELED)
_ENDED_FROM_OUTSIDE = {
    h.Status.TERMINATED: "OrchestrationTerminated",
    h.Status.CANCELED: "OrchestrationCanceled",
}
_KEPT = (h.EventRaised, h.CancelRequested)
"""What is for the instance, and not for one of its executions only."""


class Ground:
    """State, indexes, effects, and how an instance begins and ends."""

    __slots__ = (
        "abandoned",
        "confirms",
        "deleted",
        "dirty",
        "effects",
        "entities",
        "entities_ready",
        "instances",
        "newly_parked",
        "parked",
        "ready",
        "sends",
        "speculative",
        "starting",
        "state",
        "tally",
        "timers",
        "tombstones",
        "turns_begun",
        "waiters",
    )

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.instances = state.instances
        self.entities = state.entities
        self.timers = Timers()
        self.ready: OrderedDict[str, None] = OrderedDict()
        """Instances with news whose code has not been called yet, in order.

        Not a dict: taking its first key again and again costs the square of its length.
        """
        self.starting: OrderedDict[str, None] = OrderedDict()
        """Instances that clients have started and whose first turn is to come, in order."""
        self.turns_begun = 0
        self.entities_ready: OrderedDict[str, None] = OrderedDict()
        """Entities with operations to carry out now, in order."""
        self.dirty: dict[str, None] = {}
        """Changed since the last checkpoint was captured."""
        self.deleted: dict[str, None] = {}
        """Purged since the last checkpoint was captured."""
        self.tombstones: dict[str, None] = {}
        """Purged, while the store may still have them: not to be loaded again."""
        self.abandoned: list[str] = []
        """Instances whose resident code is obsolete: ended or replaced from outside."""
        self.parked: dict[str, str] = {}
        """Parked instances, in memory or not → the reason, if it was told of here since it was
        recovered or resumed."""
        self.newly_parked: list[Instance] = []
        """Those that are to be told of."""
        self.tally = Tally()
        self.effects: list[Effect] = []
        self.speculative: list[RunActivity] = []
        """May start before they are durable."""
        self.sends: dict[int, None] = {}
        self.confirms: dict[int, int] = {}
        self.waiters: dict[str, list[object]] = {}
        """Who asked to be told when an instance ends, or how a call of an entity went.

        Not durable: clients ask again.
        """

    def _install(self, instance: Instance, at: int) -> None:
        """Put a new instance in, over one of that id that had ended or that has restarted."""
        old = self.instances.get(instance.instance_id)
        if old is not None:
            assert old.is_final, f"{old.instance_id} is replaced but has not ended"
            instance.stale_history = True
            self.abandoned.append(old.instance_id)
        elif instance.instance_id in self.tombstones:
            instance.stale_history = True
            self.deleted.pop(instance.instance_id, None)
            del self.tombstones[instance.instance_id]
        self.instances[instance.instance_id] = instance
        self.tally.started.append(instance.name)
        self._begin(instance, at)

    def _begin(self, instance: Instance, at: int) -> None:
        instance.tail = [started_of(instance, at)]
        instance.history_length = 1
        self._touch(instance, at)
        self._wake(instance)

    def _continue_as_new(self, instance: Instance, outcome: Continued, at: int) -> None:
        """Begin the next execution; carried events come before those that arrived meanwhile."""
        newer = [event for event in instance.inbox if isinstance(event, _KEPT)]
        self._clear(instance)
        instance.leaving = {}
        instance.execution_id = derived_id(instance.execution_id, "next")
        instance.seed = ""
        instance.input = outcome.input
        if outcome.version is not None:
            instance.version = outcome.version
        instance.turn = 0
        instance.inbox = [*outcome.carried, *newer]
        instance.has_run = True
        if instance.cancel_requested:
            instance.cancel_requested = has_cancel(instance.inbox)
        instance.stale_history = True
        self._begin(instance, at)

    def _finish(
        self,
        instance: Instance,
        at: int,
        status: h.Status,
        *,
        output: Raw = h.NULL,
        failure: h.Failure | None = None,
    ) -> None:
        """End an instance. Activities and children still under way end unheard."""
        instance.status = status
        instance.output = output
        instance.failure = failure
        instance.completed_at = at
        instance.suspended = False
        if instance.parked:
            self._unpark(instance)
        self._clear(instance)
        if status is not h.Status.FAILED:
            if instance.inbox:
                instance.inbox = []
            if instance.leaving:
                instance.leaving = {}
        if status in _FINAL_OUTCOME:
            self._record(instance, h.ExecutionCompleted(at, status, output, failure))
        self._tell_parent(instance)
        self.tally.ended.append(instance)
        for to in self.waiters.pop(instance.instance_id, ()):
            self.effects.append(Reply(to, self.snapshot(instance)))

    def _unpark(self, instance: Instance) -> None:
        instance.parked = ""
        self.parked.pop(instance.instance_id, None)

    def _clear(self, instance: Instance) -> None:
        # Mostly all of this is empty, and an empty dict is not worth another.
        if instance.timers:
            instance.timers = {}
        if instance.pending:
            for task_id, pending in instance.pending.items():
                self._return_slot(instance, task_id, pending)
            instance.pending = {}
        if instance.children:
            instance.children = {}
        if instance.calls:
            instance.calls = {}
        if instance.locks:
            for name, section in instance.locks.items():
                self._release(name, section)
            instance.locks = {}
        self._withdraw(instance.instance_id)

    def _release(self, name: str, section: Section) -> None:
        """Give back all that a critical section has, or is about to get."""
        if not section.granted:
            self._post(m.UnlockEntity(section.entities[0], name, chain=True))
            return
        for entity_id in section.entities:
            self._post(m.UnlockEntity(entity_id, name))

    def _tell_parent(self, instance: Instance) -> None:
        parent = instance.parent
        if parent is None:
            return
        failure = instance.failure
        if (kind := _ENDED_FROM_OUTSIDE.get(instance.status)) is not None:
            failure = h.Failure(type=kind, message=instance.reason, non_retryable=True)
        self._post(
            m.ChildEnded(
                parent.instance_id,
                parent.execution_id,
                parent.task_id,
                instance.attempt,
                instance.status,
                instance.output,
                failure,
            )
        )

    def _touch(self, instance: Instance, at: int) -> None:
        if at > instance.updated_at:  # noqa: PLR1730 - hot
            instance.updated_at = at
        self.dirty[instance.instance_id] = None

    def _wake(self, instance: Instance) -> None:
        if instance.has_news() and instance.instance_id not in self.starting:
            self.ready[instance.instance_id] = None

    def _arrive(self, instance: Instance, arrival: h.Arrival, at: int) -> None:
        """Put something that arrived into its inbox, and have its code see it."""
        instance.inbox.append(arrival)
        # `_touch` and `_wake`, at half of their price: nothing comes as often.
        instance_id = instance.instance_id
        if at > instance.updated_at:  # noqa: PLR1730 - hot
            instance.updated_at = at
        self.dirty[instance_id] = None
        if (
            instance.completed_at is None
            and not instance.suspended
            and instance_id not in self.starting
            and START_TIMER not in instance.timers
        ):
            self.ready[instance_id] = None

    def _put_last(self, instance: Instance) -> None:
        """Have what has begun go before this instance, which has not."""
        if instance.instance_id in self.ready:
            del self.ready[instance.instance_id]
            self.starting[instance.instance_id] = None

    def _withdraw(self, instance_id: str) -> None:
        """Have no turn of it run."""
        self.ready.pop(instance_id, None)
        self.starting.pop(instance_id, None)

    def _record(self, instance: Instance, *events: h.HistoryEvent) -> None:
        instance.tail += events
        instance.history_length += len(events)

    def _settle(self, origin: Origin | None, at: int) -> None:
        """Remember that a request was applied, and forget those its client has settled."""
        if origin is None:
            return
        session = self.state.sessions.get(origin.client)
        if session is None:
            session = self.state.sessions[origin.client] = Session(at, origin.low, set())
        session.used_at = max(at, session.used_at)
        session.applied.add(origin.seq)
        if origin.low > session.low:
            # Each number is looked at once: a sweep per request would cost as much as is open.
            if origin.low - session.low < len(session.applied):
                session.applied.difference_update(range(session.low, origin.low))
            else:
                session.applied = {seq for seq in session.applied if seq >= origin.low}
            session.low = origin.low

    def _run(self, instance: Instance, task_id: int, pending: Pending) -> None:
        effect = RunActivity(
            instance.instance_id,
            instance.execution_id,
            task_id,
            pending.attempt,
            pending.name,
            pending.input,
            pending.timeout,
            None if pending.retry is None else pending.retry.heartbeat,
            pending.heartbeat,
            instance.trace,
        )
        if pending.speculative:
            self.speculative.append(effect)
        else:
            self.effects.append(effect)

    def _return_slot(self, instance: Instance, task_id: int, pending: Pending) -> None:
        """Let others have the slot that an attempt has or waits for, if it needs one.

        To be called when the attempt is over, before anything of it is changed.
        """
        if pending.limit is not None and pending.has_slot:
            ids = (instance.instance_id, instance.execution_id, task_id, pending.attempt)
            self._post(m.SlotReturned(pending.limit.limiter, slot_of(*ids)))

    def _cancel_activity(self, instance: Instance, task_id: int) -> None:
        self.effects.append(CancelActivity(instance.instance_id, instance.execution_id, task_id))

    def _start_child(self, instance: Instance, task_id: int, child: Child) -> None:
        parent = h.Parent(instance.instance_id, instance.execution_id, task_id, instance.name)
        self._post(
            m.StartChild(
                child.instance_id,
                child.name,
                child.input,
                parent,
                child.version,
                child.attempt,
                instance.trace,
            )
        )

    def _terminate_child(self, instance: Instance, task_id: int, child: Child, reason: str) -> None:
        self._post(m.TerminateChild(child.instance_id, instance.execution_id, task_id, reason))

    def _terminate_leaving(self, task_id: int, left: Leaving, reason: str) -> None:
        self._post(m.TerminateChild(left.instance_id, left.execution_id, task_id, reason))

    def _terminate(self, instance: Instance, at: int, reason: str, *, recursive: bool) -> None:
        for task_id in instance.pending:
            self._cancel_activity(instance, task_id)
        if recursive:
            for task_id, child in instance.children.items():
                self._terminate_child(instance, task_id, child, reason)
            for task_id, left in instance.leaving.items():
                self._terminate_leaving(task_id, left, reason)
        instance.reason = reason
        self._record(instance, h.ExecutionTerminated(at, reason))
        self.abandoned.append(instance.instance_id)
        self._touch(instance, at)
        self._finish(instance, at, h.Status.TERMINATED)

    def _cancel_from_outside(self, instance: Instance, at: int, reason: str) -> None:
        """Have its code be told; without code that has begun there is nothing to clean up."""
        event = h.CancelRequested(at, reason)
        self._touch(instance, at)
        if instance.has_begun:
            instance.cancel_requested = True
            instance.inbox.append(event)
            self._wake(instance)
        else:
            self._record(instance, event)
            self.abandoned.append(instance.instance_id)
            self._end_canceled(instance, at, reason)

    def _end_canceled(self, instance: Instance, at: int, reason: str) -> None:
        instance.reason = reason
        self._finish(instance, at, h.Status.CANCELED)

    def _post(self, message: m.Message) -> None:
        destination = partition_of(message.instance_id, self.state.partitions)
        lane = self.state.lanes.get(destination)
        if lane is None:
            lane = self.state.lanes[destination] = Lane()
        lane.messages.append(message)
        self.sends[destination] = None

    def snapshot(self, instance: Instance) -> Snapshot:
        """Return an instance as users see it."""
        return snapshot_of(instance, self.state.partition)


def has_cancel(events: Iterable[h.HistoryEvent]) -> bool:
    """Whether a request to cancel is among some events."""
    return any(isinstance(event, h.CancelRequested) for event in events)


def started_of(instance: Instance, at: int | None = None) -> h.ExecutionStarted:
    """Return the first event of an execution, as of when the instance was created by default."""
    return h.ExecutionStarted(
        instance.created_at if at is None else at,
        instance.name,
        instance.input,
        instance.version,
        instance.parent,
        instance.tags,
    )


def begun_by(instance: Instance) -> h.ExecutionStarted:
    """Return the same for a turn: the event that is in memory, unless it looks different by now."""
    tail = instance.tail
    if tail:
        first = tail[0]
        if (
            type(first) is h.ExecutionStarted
            and first.at == instance.created_at
            and first.parent is instance.parent
        ):
            return first
    return started_of(instance)


def snapshot_of(instance: Instance, partition: int) -> Snapshot:
    """Return an instance as users see it."""
    parent = instance.parent
    return Snapshot(
        instance_id=instance.instance_id,
        execution_id=instance.execution_id,
        name=instance.name,
        status=instance.status,
        created_at=instance.created_at,
        updated_at=instance.updated_at,
        partition=partition,
        version=instance.version,
        completed_at=instance.completed_at,
        input=instance.input,
        output=instance.output,
        custom_status=instance.custom_status,
        failure=instance.failure,
        reason=instance.parked or instance.reason,
        parent_instance_id=parent.instance_id if parent is not None else None,
        tags=instance.tags,
    )
