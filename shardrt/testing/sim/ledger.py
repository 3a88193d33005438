"""What has really happened: every durable record, replayed on the side and judged at once.

The ledger stands next to the database. It knows who owns what by the claims that it saw, and
keeps a *shadow* of each partition that applies every accepted record and forgets nothing. So
what a client, an activity or a recovery sees can be compared with the truth at that very moment.

Invariants are named as in the documentation (docs/reliability).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from shardrt.core import entries as e, history as h
from shardrt.core.codec import decode_record
from shardrt.core.entries import instance_of
from shardrt.core.ground import snapshot_of
from shardrt.core.ids import partition_of
from shardrt.core.partition import Partition
from shardrt.core.state import PartitionState
from shardrt.testing.sim.compare import WHOLE, instance_differences
from shardrt.testing.virtual import true_now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.core.messages import Message
    from shardrt.core.requests import Snapshot
    from shardrt.core.state import Instance, Resident
    from shardrt.store.base import Append, Checkpoint
    from shardrt.store.memory import MemoryStore
    from shardrt.testing.sim.processes import SimLoop

EARLY_US = 20_000
"""How early a timer may be: what a fast clock gains between two renewals of a lease."""

TaskKey = tuple[str, str, int]
"""Instance, execution, task."""


class Violation(NamedTuple):
    """An invariant that does not hold."""

    invariant: str
    text: str
    at_s: float


class Version(NamedTuple):
    """How an instance looked from a moment on; None: there was none."""

    since_s: float
    snapshot: Snapshot | None


class Shadow(Partition):
    """A partition as its journal says, which remembers all messages that it ever posted."""

    def __init__(self, state: PartitionState) -> None:
        super().__init__(state)
        self.posted: dict[int, list[Message]] = {}

    def _post(self, message: Message) -> None:
        destination = partition_of(message.instance_id, self.state.partitions)
        self.posted.setdefault(destination, []).append(message)
        super()._post(message)


class Ledger:
    """Judge and witness of one run."""

    def __init__(self, loop: SimLoop, partitions: int) -> None:
        self.loop = loop
        self.store: MemoryStore
        """Set before the first call."""
        self.answering: Callable[[int, int], list[str]] = lambda *_: []
        """Who serves a partition under an older epoch, and would answer by its lease."""
        self.is_current: Callable[[str], bool] = lambda _: False
        """Whether what runs now is a shard that has this instance under the newest epoch."""
        self.violations: list[Violation] = []
        self.shadows = [
            Shadow(PartitionState(partition=each, partitions=partitions))
            for each in range(partitions)
        ]
        self.epochs = [0] * partitions
        self.lsns = [0] * partitions
        self.fenced: Counter[str] = Counter()
        """Attempts under an old epoch that were refused, by kind."""
        self.recoveries = 0
        self.entries = 0
        self.versions: dict[str, list[Version]] = {}
        self.applied: dict[tuple[str, int], e.Entry] = {}
        """Every request that was ever applied, by session and number."""
        self.scheduled: set[TaskKey] = set()
        self.retried: Counter[TaskKey] = Counter()
        self.outcomes: set[TaskKey] = set()
        self.returned: dict[TaskKey, set[bytes]] = {}
        """What attempts of an activity returned, as JSON."""

    def violated(self, invariant: str, text: str) -> None:
        """Note that something is wrong."""
        self.violations.append(Violation(invariant, text, self.loop.time()))

    # -- the database --------------------------------------------------------------------------

    def on_call(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Look at a call that has just taken effect."""
        watch = getattr(self, f"_on_{name}", None)
        if watch is not None:
            watch(result, *args)

    def _on_claim(self, epoch: int | None, partition: int, *_: Any) -> None:
        if epoch is None:
            return
        if epoch <= self.epochs[partition]:
            text = f"partition {partition} claimed twice under epoch {epoch}"
            self.violated("I2", text)
        self.epochs[partition] = epoch
        for other in self.answering(partition, epoch):
            text = f"{other} may still answer for partition {partition}, claimed under {epoch}"
            self.violated("I12", text)

    def _check_epoch(self, partition: int, epoch: int, what: str) -> None:
        if epoch != self.epochs[partition]:
            current = self.epochs[partition]
            text = f"{what} of partition {partition} under epoch {epoch}, which is {current} by now"
            self.violated("I2", text)

    def _on_release(self, done: bool, partition: int, epoch: int) -> None:
        if done:
            self._check_epoch(partition, epoch, "release")

    def _on_checkpoint(self, _: None, checkpoint: Checkpoint) -> None:
        self._check_epoch(checkpoint.partition, checkpoint.epoch, "checkpoint")
        if checkpoint.lsn > self.lsns[checkpoint.partition]:
            self.violated("I9", f"checkpoint {checkpoint.lsn} is ahead of the journal")

    def _on_truncate(self, _: int, partition: int, epoch: int, lsn: int) -> None:
        self._check_epoch(partition, epoch, "truncation")
        row = self.store._hub.partitions[partition]  # noqa: SLF001 - the judge may look
        kept = len(row.journal)
        if row.commit_lsn - kept > row.checkpoint_lsn:
            text = f"journal of {partition} cut at {lsn}, its checkpoint is {row.checkpoint_lsn}"
            self.violated("I9", text)

    def _on_append(self, accepted: set[int], batch: Sequence[Append]) -> None:
        for each in batch:
            if each.partition in accepted:
                self._accepted(each)
            elif each.epoch != self.epochs[each.partition]:
                self.fenced["append"] += 1

    def _accepted(self, append: Append) -> None:
        partition = append.partition
        self._check_epoch(partition, append.epoch, f"record {append.lsn}")
        if append.lsn != self.lsns[partition] + 1:
            self.violated("I2", f"record {append.lsn} of {partition} after {self.lsns[partition]}")
        self.lsns[partition] = append.lsn
        shadow = self.shadows[partition]
        for entry in decode_record(append.record):
            self.entries += 1
            self._judge(shadow, entry)
            try:
                shadow.replay([entry])
            except Exception as error:  # noqa: BLE001 - whatever it is, the record is wrong
                text = f"record {append.lsn} of {partition} cannot be replayed: {error!r} {entry}"
                self.violated("I3", text)
                return
            # After each entry: who asks in the middle of a record is told when all of it is
            # durable, and what was so in the middle.
            if (instance_id := instance_of(entry)) is not None:
                self._note_version(shadow, instance_id)
                self._judge_limiter(shadow, instance_id)
            if isinstance(entry, e.Rewound):
                self._note_rewound(shadow.instances[entry.instance_id])

    def _judge_limiter(self, shadow: Shadow, entity_id: str) -> None:
        entity = shadow.entities.get(entity_id)
        limiter = None if entity is None else entity.limiter
        if limiter is not None and len(limiter.holders) > (limiter.numbers.concurrency or 0):
            self.violated("limits", f"{entity_id} has let too many through: {limiter}")

    def judge_slots(self) -> None:
        """Judge limiters when everything has ended: nobody has or wants a slot."""
        for shadow in self.shadows:
            for entity_id, entity in shadow.entities.items():
                if entity.limiter is not None and not entity.limiter.is_unused:
                    self.violated("limits", f"slots of {entity_id} leak: {entity.limiter}")

    def _note_version(self, shadow: Shadow, instance_id: str) -> None:
        instance = shadow.instances.get(instance_id)
        snapshot = None if instance is None else snapshot_of(instance, shadow.state.partition)
        versions = self.versions.setdefault(instance_id, [])
        versions.append(Version(self.loop.time(), snapshot))

    def _note_rewound(self, instance: Instance) -> None:
        for task_id in instance.pending:
            self.scheduled.add((instance.instance_id, instance.execution_id, task_id))

    # -- entries, before they are applied ------------------------------------------------------

    def _judge(self, shadow: Shadow, entry: e.Entry) -> None:
        origin = getattr(entry, "origin", None) or getattr(entry, "created_by", None)
        if origin is not None:
            key = (origin.client, origin.seq)
            if key in self.applied:
                self.violated("I5", f"request {key} applied twice: {entry}")
            self.applied[key] = entry
        match entry:
            case e.Fired():
                self._judge_fired(shadow, entry)
            case e.Arrived():
                self._judge_arrived(shadow, entry)
            case e.Received():
                self._judge_received(shadow, entry)
            case e.Stepped():
                self._judge_stepped(shadow, entry)
            case e.Retried():
                if (instance := shadow.instances.get(entry.instance_id)) is not None:
                    self.retried[instance.instance_id, instance.execution_id, entry.task_id] += 1
            case _:
                pass

    def _judge_fired(self, shadow: Shadow, entry: e.Fired) -> None:
        now = true_now_us(self.loop)
        for due in _dues(shadow, entry):
            if due > now + EARLY_US:
                early_s = (due - now) / 1e6
                self.violated("I7", f"a timer of {entry.instance_id} fired {early_s:.3f} s early")

    def _judge_arrived(self, shadow: Shadow, entry: e.Arrived) -> None:
        instance = shadow.instances.get(entry.instance_id)
        event = entry.event
        if instance is None or not isinstance(event, (h.TaskCompleted, h.TaskFailed)):
            return
        key = (entry.instance_id, instance.execution_id, event.task_id)
        if instance.is_final:
            self.violated("I4", f"an outcome after the end: {key}")
        if key in self.outcomes:
            self.violated("I4", f"two outcomes of {key}")
        self.outcomes.add(key)
        if isinstance(event, h.TaskCompleted) and bytes(event.result) not in self.returned.get(
            key, set()
        ):
            self.violated("I4", f"{key} has the result of something else: {bytes(event.result)!r}")

    def _judge_received(self, shadow: Shadow, entry: e.Received) -> None:
        last = shadow.state.received.get(entry.source, 0)
        posted = self.shadows[entry.source].posted.get(shadow.state.partition, [])
        what = f"message {entry.seq} from {entry.source} to {shadow.state.partition}"
        if entry.seq != last + 1:
            self.violated("I6", f"{what} was received after {last}")
        elif entry.seq > len(posted):
            self.violated("I1", f"{what} was received before it was durable")
        elif posted[entry.seq - 1] != entry.message:
            self.violated("I6", f"{what} is not what was sent: {entry.message}")

    def _judge_stepped(self, shadow: Shadow, entry: e.Stepped) -> None:
        instance = shadow.instances.get(entry.instance_id)
        if instance is None:
            return
        if instance.is_final:
            self.violated("I4", f"a turn of {entry.instance_id} after its end")
        for action in entry.actions:
            if isinstance(action, h.TaskScheduled):
                key = (entry.instance_id, instance.execution_id, action.task_id)
                self.scheduled.add(key)

    # -- what others see -----------------------------------------------------------------------

    def on_start(self, key: TaskKey, attempt: int) -> None:
        """Judge an attempt of an activity that starts now."""
        if key in self.outcomes and self.is_current(key[0]):
            self.violated("I4", f"{key} started again although its outcome is durable")
        if key not in self.scheduled:
            self.violated("I1", f"{key} started before it was durable")
        elif attempt > self.retried[key] + 1:
            self.violated("I1", f"attempt {attempt} of {key} started before it was durable")
        instance = self.shadows[partition_of(key[0], len(self.shadows))].instances.get(key[0])
        if instance is None or instance.execution_id != key[1]:
            return
        pending = instance.pending.get(key[2])
        if pending is not None and pending.attempt == attempt and pending.waits_for_slot:
            self.violated("limits", f"attempt {attempt} of {key} started without a slot")

    def on_recovered(self, core: Partition, commit_lsn: int) -> None:
        """Judge what an owner made of the store."""
        partition = core.state.partition
        if commit_lsn != self.lsns[partition]:
            return  # the next owner has written already
        self.recoveries += 1
        shadow = self.shadows[partition]
        for name in ("lanes", "received", "sessions"):
            mine, true = getattr(core.state, name), getattr(shadow.state, name)
            if mine != true:
                self.violated("I3", f"{name} of {partition} recovered as {mine}, not {true}")
        self._judge_residents(core, shadow)

    def _judge_residents(self, core: Partition, shadow: Shadow) -> None:
        """Compare what is in memory, and find what should be."""
        for instance_id, instance in core.instances.items():
            copy = shadow.instances.get(instance_id)
            found = ["it was purged"] if copy is None else instance_differences(instance, copy)
            for difference in found:
                self.violated("I3", f"{instance_id} is not what the journal says: {difference}")
        for entity_id, entity in core.entities.items():
            if entity != shadow.entities.get(entity_id):
                self.violated("I3", f"{entity_id} is not what the journal says: {entity}")
        residents: list[Resident] = [*shadow.instances.values(), *shadow.entities.values()]
        for resident in residents:
            if resident.is_active and not core.holds(resident.instance_id):
                self.violated("I3", f"{resident.instance_id} is active and not in memory")

    def check_live(self, live: Partition) -> None:
        """Judge the memory of an owner that has nothing to do."""
        shadow = self.shadows[live.state.partition]
        for name in WHOLE:
            mine, true = getattr(live.state, name), getattr(shadow.state, name)
            if mine != true:
                self.violated("I3", f"{name} in memory is {mine}, in the journal {true}")
        self._judge_residents(live, shadow)

    def check_read(self, instance_id: str, seen: Snapshot | None, since_s: float) -> None:
        """Judge an answer that came just now to who asked at `since_s`."""
        versions = [Version(0.0, None), *self.versions.get(instance_id, [])]
        ends = [*(version.since_s for version in versions[1:]), self.loop.time()]
        for version, end_s in zip(versions, ends, strict=True):
            if end_s >= since_s and version.snapshot == seen:
                return
        current = versions[-1].snapshot
        known = any(version.snapshot == seen for version in versions)
        kind = "stale" if known else "never durable"
        status = None if seen is None else f"{seen.status} of {seen.execution_id}"
        truth = None if current is None else f"{current.status} of {current.execution_id}"
        self.violated("I1", f"a read of {instance_id} is {kind}: {status}, it is {truth}")


def _dues(shadow: Shadow, entry: e.Fired) -> list[int]:
    """Return when the timers that fire were due."""
    entity = shadow.entities.get(entry.instance_id)
    if entity is not None and entity.limiter is not None:
        return [] if entity.limiter.due is None else [entity.limiter.due]
    if entity is not None:
        return [entity.delayed[each].at for each in entry.task_ids if each in entity.delayed]
    instance = shadow.instances.get(entry.instance_id)
    if instance is None:
        return []
    dues: list[int] = []
    for task_id in entry.task_ids:
        pending, child = instance.pending.get(task_id), instance.children.get(task_id)
        if task_id in instance.timers:
            dues.append(instance.timers[task_id])
        elif pending is not None:
            options = [each for each in (pending.retry_at, pending.deadline) if each is not None]
            dues += [min(options)] if options else []
        elif child is not None and child.retry_at is not None:
            dues.append(child.retry_at)
    return dues
