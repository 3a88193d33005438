"""A partition: inputs in, journal entries and effects out.

Each input is decided against the state, becomes at most a few entries, and those are applied
at once, so that memory runs ahead of the store. `seal` takes what has gathered since the last
seal as one journal record, together with the effects that may be released once that record is
durable. If a record is refused, the whole object is thrown away: nothing of it has been seen.

Whatever an input needs to know of the time, or of chance, comes with it. An input that concerns
an instance must find it in memory if it exists at all; loading it first is the host's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.effects import Confirm, Effect, RunActivity, Send
from shardrt.core.entity import Entity
from shardrt.core.entity_answering import EntityAnswering
from shardrt.core.ground import begun_by
from shardrt.core.retry import retry_at
from shardrt.core.timers import WHOLE, Item
from shardrt.core.work import Parked, Step, WorkItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from msgspec import Raw

    from shardrt.core.state import Child, Instance, Pending, Resident


BEGIN_EVERY = 64
"""Of so many turns at least one is the first of an instance, so that none waits for ever."""

NO_HISTORIES: dict[str, Sequence[h.HistoryEvent]] = {}


class Sealed(msgspec.Struct, frozen=True, gc=False):
    """What is to be committed as one record, and what may happen after that."""

    entries: list[e.Entry]
    effects: list[Effect]


class Partition(EntityAnswering):
    """One partition under one epoch."""

    __slots__ = ()

    # -- recovery ----------------------------------------------------------------------------

    def holds(self, instance_id: str) -> bool:
        """Whether there is an instance or entity of that id in memory."""
        return instance_id in self.instances or instance_id in self.entities

    def admit(self, resident: Resident) -> None:
        """Put an instance or entity that was loaded from the store into memory."""
        instance_id = resident.instance_id
        assert instance_id not in self.tombstones, f"{instance_id} was purged"
        assert not self.holds(instance_id), f"{instance_id} is in memory"
        self.quarantined.pop(instance_id, None)
        if isinstance(resident, Entity):
            self.entities[instance_id] = resident
            for number, delayed in resident.delayed.items():
                self.timers.add(delayed.at, instance_id, number)
            if resident.limiter is not None and resident.limiter.due is not None:
                self.timers.add(resident.limiter.due, instance_id, 0)
            return
        self.instances[instance_id] = resident
        if resident.parked:
            self.parked.setdefault(instance_id, "")
        self._index(resident)

    def can_evict(self, instance_id: str) -> bool:
        """Whether nothing is under way for an instance, and no checkpoint is due for it.

        NB: `dirty` is cleared when a checkpoint is captured; wait until it is committed.
        """
        if instance_id in self.dirty:
            return False
        entity = self.entities.get(instance_id)
        if entity is not None:
            return not entity.is_active
        instance = self.instances[instance_id]
        if instance.is_final:
            return True
        if self.is_due(instance_id) or instance_id in self.out:
            return False
        pending = instance.pending.values()
        return all(each.retry_at is not None or each.is_asleep for each in pending)

    def evict(self, instance_id: str) -> None:
        """Forget an instance or entity whose newest state is in the store; see `can_evict`."""
        assert self.can_evict(instance_id), f"{instance_id} is evicted but needed in memory"
        resident = self.instances.pop(instance_id, None) or self.entities.pop(instance_id)
        due = resident.next_due
        if due is not None:
            self.timers.add(due, instance_id, WHOLE)

    def _index(self, instance: Instance) -> None:
        for task_id, due in instance.timers.items():
            self.timers.add(due, instance.instance_id, task_id)
        calls: dict[int, Pending | Child] = {**instance.pending, **instance.children}
        for task_id, call in calls.items():
            if call.retry_at is not None:
                self.timers.add(call.retry_at, instance.instance_id, task_id)
        for task_id, pending in instance.pending.items():
            if pending.deadline is not None:
                self.timers.add(pending.deadline, instance.instance_id, task_id)

    def replay(self, entries: Iterable[e.Entry]) -> None:
        """Apply what the journal holds; what it led to then is not done again."""
        for entry in entries:
            self.apply(entry)
        self.effects.clear()
        self.speculative.clear()
        self.sends.clear()
        self.confirms.clear()
        self.abandoned.clear()
        self.tally.clear()

    def take(self, epoch: int, now: int) -> None:
        """Begin to own the partition; everything unfinished is put under way again.

        The effects come out with the next `seal`: activities without outcome run again, and
        unacknowledged messages are sent again.
        """
        self._write(e.Taken(now, epoch))
        self.ready.clear()
        self.starting.clear()
        self.entities_ready.clear()
        for entity in self.entities.values():
            if entity.has_news():
                self.entities_ready[entity.instance_id] = None
        for instance in self.instances.values():
            if instance.is_final:
                continue
            for task_id, pending in instance.pending.items():
                if pending.retry_at is None and not pending.waits_for_slot:
                    self._run(instance, task_id, pending)
            self._wake(instance)
            if instance.turn == 0 and instance.parent is None:
                self._put_last(instance)
        for destination, lane in self.state.lanes.items():
            if lane.messages:
                self.sends[destination] = None

    # -- activities ----------------------------------------------------------------------------

    def activity_ended(
        self, run: RunActivity, outcome: Raw | h.Failure, now: int, draw: float
    ) -> None:
        """Take the outcome of an attempt; one that nobody waits for any more is dropped.

        `draw` from [0, 1) picks the jitter if there is another attempt.
        """
        instance = self.instances.get(run.instance_id)
        pending = None
        if instance is not None and instance.execution_id == run.execution_id:
            pending = instance.pending.get(run.task_id)
        if pending is None or pending.attempt != run.attempt or pending.retry_at is not None:
            self.stale += 1
            return
        event: h.Arrival
        if type(outcome) is h.Failure:
            due = retry_at(
                pending.retry,
                outcome,
                attempt=pending.attempt,
                first_at=pending.first_at,
                now=now,
                draw=draw,
            )
            if due is not None:
                self._write(e.Retried(now, run.instance_id, run.task_id, outcome, due))
                return
            event = h.TaskFailed(run.task_id, now, outcome)
        else:
            event = h.TaskCompleted(run.task_id, now, outcome)
        self._write(e.Arrived(run.instance_id, event))

    # -- timers --------------------------------------------------------------------------------

    def fire(self, now: int, limit: int) -> list[str]:
        """Fire timers due by `now`, at most about `limit`; return instances to load first.

        An item of an instance that is not in memory is taken out: `admit` indexes it again.
        """
        due: dict[str, list[int]] = {}
        absent: dict[str, None] = {}
        for _ in range(limit):
            item = self.timers.pop(now)
            if item is None:
                break
            _, instance_id, task_id = item
            if self._is_confirmed(item):
                if self.holds(instance_id):
                    due.setdefault(instance_id, []).append(task_id)
                else:
                    absent[instance_id] = None
        for instance_id, task_ids in due.items():
            self._write(e.Fired(now, instance_id, tuple(dict.fromkeys(task_ids))))
        return list(absent)

    def _is_confirmed(self, item: Item) -> bool:
        due, instance_id, task_id = item
        instance = self.instances.get(instance_id)
        if instance is None:
            entity = self.entities.get(instance_id)
            if entity is not None and entity.limiter is not None:
                return entity.limiter.due == due
            if entity is not None:
                delayed = entity.delayed.get(task_id)
                return delayed is not None and delayed.at == due
            return task_id == WHOLE and instance_id not in self.tombstones
        if instance.timers.get(task_id) == due:
            return True
        if (pending := instance.pending.get(task_id)) is not None:
            return due in {pending.retry_at, pending.deadline}
        child = instance.children.get(task_id)
        return child is not None and child.retry_at == due

    def compact_timers(self) -> None:
        """Drop the index of cancelled timers, if they have piled up."""
        self.timers.compact(self._is_confirmed)

    # -- messages ------------------------------------------------------------------------------

    def receive(
        self,
        source: int,
        first: int,
        messages: Sequence[m.Message],
        now: int,
        draw: float,
        histories: Mapping[str, Sequence[h.HistoryEvent]] = NO_HISTORIES,
    ) -> int | None:
        """Take messages of a stream; return the sequence number to resend from, if one misses.

        What was applied before is confirmed again, so that the sender can forget it. There
        must be the whole history of each instance that a message rewinds; see `to_rewind`.
        """
        last = self.state.received.get(source, 0)
        if first > last + 1:
            return last + 1
        for message in messages[last + 1 - first :]:
            last += 1
            if message.instance_id in self.quarantined:
                self._write(e.PutAside(now, source, last, message))
                continue
            again = self._retry_child(message, now, draw)
            self._write(e.Received(now, source, last, message, again))
            if type(message) is m.RewindChild:
                self._rewind_child(message, now, histories)
        self.confirms[source] = last
        return None

    def take_up(self, instance_id: str, now: int, draw: float) -> None:
        """Give an instance what was put aside for it while it could not be read.

        It is in memory now, or there is none of that id.
        """
        self._take_up(instance_id, now, draw)

    def to_rewind(self, message: m.Message) -> Instance | None:
        """Return the failed instance that a message rewinds, if it does."""
        if type(message) is not m.RewindChild:
            return None
        child = self._called_before(message)
        return child if child is not None and child.status is h.Status.FAILED else None

    def _rewind_child(
        self,
        message: m.RewindChild,
        now: int,
        histories: Mapping[str, Sequence[h.HistoryEvent]],
    ) -> None:
        # In the same record as the message.
        child = self.to_rewind(message)
        if child is not None:
            history = histories[child.instance_id]
            self._write_rewound(child, history, now, parent=message.parent, attempt=message.attempt)

    def acknowledged(self, destination: int, last: int) -> None:
        """Another partition has committed our messages up to `last`.

        NB: this entry may wait for the next record; if it is lost, the messages are sent again.
        """
        lane = self.state.lanes.get(destination)
        if lane is not None and lane.acknowledged < last <= lane.last:
            self._write(e.Acknowledged(destination, last))

    def forget_sessions(self, before: int) -> None:
        """Drop sessions of clients not heard of since `before`."""
        old = [name for name, session in self.state.sessions.items() if session.used_at < before]
        if old:
            self._write(e.Forgot(tuple(old)))

    # -- turns of the code ---------------------------------------------------------------------

    def next_work(self, now: int) -> WorkItem | None:
        """Hand out the next turn to run. It must come back by `step`.

        Oldest news first; but what has begun goes before what has not, so that more than can be
        done at a time is done one after the other, and not all of it late.
        """
        ready, starting = self.ready, self.starting
        while ready or starting:
            self.turns_begun += 1
            begin = starting and (not ready or self.turns_begun % BEGIN_EVERY == 0)
            instance_id, _ = (starting if begin else ready).popitem(last=False)
            instance = self.instances[instance_id]
            out = self.out.get(instance_id)
            if out is not None and out.execution_id == instance.execution_id:
                continue  # `step` wakes it again
            if not instance.has_news():
                continue
            # Not before anything that has happened to it, also if another owner's clock was
            # ahead of ours: no code may see a timer fire early.
            at = now if now > instance.updated_at else instance.updated_at  # noqa: FURB136 - hot
            item = self.out[instance_id] = WorkItem(
                instance_id,
                instance.execution_id,
                instance.turn,
                at,
                begun_by(instance),
                tuple(instance.inbox),
                instance.seed,
            )
            return item
        return None

    def is_due(self, instance_id: str) -> bool:
        """Whether a turn of it is to be run."""
        return instance_id in self.ready or instance_id in self.starting

    @property
    def has_turns(self) -> bool:
        """Whether turns are to be run."""
        return bool(self.ready or self.starting or self.entities_ready)

    def step(self, step: Step) -> bool:
        """Take a turn back; return False if it does not count any more.

        It is discarded as a whole, outputs included, if the instance was ended, replaced or
        purged meanwhile.
        """
        out = self.out.get(step.instance_id)
        if out is None or out.turn != step.turn or out.execution_id != step.execution_id:
            self.stale += 1
            return False
        del self.out[step.instance_id]
        instance = self.instances.get(step.instance_id)
        if (
            instance is None
            or instance.completed_at is not None
            or instance.execution_id != step.execution_id
        ):
            self.stale += 1
            return False
        outcome, status = step.outcome, step.custom_status
        if type(outcome) is Parked:
            if outcome.reason != instance.parked:
                self._write(e.Stepped(out.at, step.instance_id, 0, outcome=outcome))
            if outcome.reason != self.parked.get(step.instance_id):
                self.parked[step.instance_id] = outcome.reason
                self.newly_parked.append(instance)
            if len(instance.inbox) > len(out.arrivals):
                self._wake(instance)
            return True
        self._write(
            e.Stepped(
                out.at,
                step.instance_id,
                len(out.arrivals),
                step.actions,
                outcome,
                () if status is None else (status,),
            )
        )
        return True

    def condemn(self, instance_id: str, reason: str, now: int) -> None:
        """Suspend an instance whose code must not run, also if a turn was just handed out."""
        self.out.pop(instance_id, None)
        instance = self.instances[instance_id]
        if not instance.is_final and not instance.suspended:
            self._write(e.Suspended(now, instance_id, reason))

    def retry_parked(self, reason: str) -> None:
        """Try the code of those again that are parked for this reason."""
        for instance_id in list(self.parked):
            instance = self.instances.get(instance_id)
            if instance is not None and instance.parked == reason:
                self.parked[instance_id] = ""
                self._wake(instance)

    # -- commits -------------------------------------------------------------------------------

    @property
    def has_record(self) -> bool:
        """Whether there is anything to commit that somebody waits for."""
        return bool(self.entries)

    def seal(self) -> Sealed:
        """Take what is to be committed next, and the effects to release after that."""
        effects = self.effects
        if self.confirms:
            effects += [Confirm(source, last) for source, last in self.confirms.items()]
            self.confirms = {}
        if self.sends:
            lanes = self.state.lanes
            effects += [Send(destination, lanes[destination].last) for destination in self.sends]
            self.sends = {}
        sealed = Sealed(self.entries, effects)
        self.entries, self.effects = [], []
        return sealed
