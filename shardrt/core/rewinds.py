"""How a rewound instance goes on, and how its children learn of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.entity_transitions import EntityTransitions
from shardrt.core.ground import has_cancel
from shardrt.core.rewinding import Call, open_calls
from shardrt.core.state import Child, Instance, Pending

if TYPE_CHECKING:
    from collections.abc import Iterable


class Rewinds(EntityTransitions):
    """The part of the transitions that is about rewinding."""

    __slots__ = ()

    def rewound(self, entry: e.Rewound) -> None:
        """Let a failed instance go on from before its failure."""
        instance = self.instances[entry.instance_id]
        assert instance.status is h.Status.FAILED, f"{entry.instance_id} has not failed"
        self._settle(entry.origin, entry.at)
        self.abandoned.append(entry.instance_id)
        for task_id, child_id in entry.orphans:
            # Before anything else: the code may soon ask for a child of this very id.
            orphan = Child(instance_id=child_id)
            self._terminate_child(instance, task_id, orphan, "its parent was rewound")
        self._rewind_leaving(instance, entry.history)
        previous = instance.execution_id
        instance.seed = instance.seed or previous
        instance.execution_id = entry.execution_id
        if entry.parent is not None:
            instance.parent, instance.attempt = entry.parent, entry.attempt
        self._open_again(instance)
        instance.tail = [*entry.history, h.ExecutionRewound(entry.at, entry.reason)]
        instance.history_length = len(instance.tail)
        instance.stale_history = True
        instance.has_run = True
        instance.turn = sum(isinstance(each, h.OrchestratorStarted) for each in entry.history)
        instance.inbox = list(entry.inbox)
        if instance.cancel_requested:
            instance.cancel_requested = has_cancel((*entry.history, *entry.inbox))
        for call in _unanswered(entry.history, entry.inbox):
            self._call_again(instance, call, previous, entry.at)
        self._touch(instance, entry.at)
        self._wake(instance)

    def _rewind_leaving(self, instance: Instance, kept: Iterable[h.HistoryEvent]) -> None:
        """Decide about children that were cancelled and may still clean up.

        If the code forgets that it cancelled one it waits for it again; if it also forgets that
        it called it, it may soon ask for a child of this very id.
        """
        called: set[int] = set()
        canceled: set[int] = set()
        for event in kept:
            if isinstance(event, h.SubOrchestrationInstanceCreated):
                called.add(event.task_id)
            elif isinstance(event, h.TaskCanceled):
                canceled.add(event.task_id)
        for task_id in [each for each in instance.leaving if each not in canceled]:
            left = instance.leaving.pop(task_id)
            if task_id not in called or left.execution_id != instance.execution_id:
                self._terminate_leaving(task_id, left, "its parent was rewound")

    @staticmethod
    def _open_again(instance: Instance) -> None:
        instance.status = h.Status.RUNNING
        instance.completed_at = None
        instance.output = h.NULL
        instance.failure = None
        instance.reason = ""

    def _call_again(self, instance: Instance, call: Call, previous: str, at: int) -> None:
        task_id = call.task_id
        if isinstance(call, h.TaskScheduled):
            pending = Pending(
                name=call.name,
                input=call.input,
                first_at=at,
                retry=call.retry,
                timeout=call.timeout,
                speculative=call.speculative,
                limit=call.limit,
            )
            instance.pending[task_id] = pending
            if pending.deadline is not None:
                self.timers.add(pending.deadline, instance.instance_id, task_id)
            self._begin_attempt(instance, task_id, pending)
        elif isinstance(call, h.TimerCreated):
            instance.timers[task_id] = call.fire_at
            self.timers.add(call.fire_at, instance.instance_id, task_id)
        elif isinstance(call, h.EntityOperationCalled):
            self._call_entity(instance, call, at)
        else:
            child = Child(instance_id=call.instance_id, first_at=at, retry=call.retry)
            if call.retry is not None:
                child.name, child.version, child.input = call.name, call.version, call.input
            instance.children[task_id] = child
            parent = h.Parent(instance.instance_id, instance.execution_id, task_id, instance.name)
            self._post(
                m.RewindChild(
                    call.instance_id,
                    call.name,
                    call.input,
                    parent,
                    previous,
                    call.version,
                    trace=instance.trace,
                )
            )

    def _called_before(self, message: m.RewindChild) -> Instance | None:
        """Return the instance that the call had started before, unless it was ended by force."""
        child = self.instances.get(message.instance_id)
        if child is None or child.parent is None:
            return None
        if child.status in {h.Status.TERMINATED, h.Status.CANCELED}:
            return None
        parent, caller = child.parent, message.parent
        known = (parent.instance_id, parent.execution_id, parent.task_id)
        if known != (caller.instance_id, message.previous_execution_id, caller.task_id):
            return None
        return child

    def _adopt(self, child: Instance, message: m.RewindChild, at: int) -> None:
        child.parent, child.attempt = message.parent, message.attempt
        self._touch(child, at)
        if child.is_final:
            self._tell_parent(child)


def _unanswered(
    history: tuple[h.HistoryEvent, ...], inbox: tuple[h.Arrival, ...]
) -> Iterable[Call]:
    calls = open_calls(history)
    for event in inbox:
        if not isinstance(event, (h.EventRaised, h.CancelRequested)):
            del calls[event.task_id]
    return calls.values()
