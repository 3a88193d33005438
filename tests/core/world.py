"""A hub in miniature: partitions with a journal, a store and a network that may misbehave.

Everything that a host does is here in its simplest form: commit, release, checkpoint, evict,
load, crash, recover. What may go wrong is a method that a test calls when it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from shardrt.core import codec, entries as e, messages as m, requests as r
from shardrt.core.effects import CancelActivity, Confirm, Effect, Observed, Reply, RunActivity, Send
from shardrt.core.entity import Entity, EntityStep, EntityWork, is_entity_id
from shardrt.core.ids import partition_of
from shardrt.core.state import Head, Instance, PartitionState
from shardrt.core.timers import WHOLE
from tests.core.twin import Twin

if TYPE_CHECKING:
    from shardrt.core.history import Failure, HistoryEvent
    from shardrt.core.work import Step, WorkItem

START = 1_000_000_000


class Frame(msgspec.Struct, frozen=True):
    """Messages of one stream on their way."""

    source: int
    destination: int
    first: int
    messages: tuple[m.Message, ...]


class Row(msgspec.Struct):
    """An instance in the store."""

    execution_id: str
    active: bool
    next_due: int | None
    state: bytes


class Node:
    """One partition: what is in memory, and what is durable."""

    def __init__(self, number: int, partitions: int) -> None:
        self.number = number
        self.partitions = partitions
        self.journal: list[bytes] = []
        """All records ever committed; a store keeps those after the checkpoint only."""
        self.rows: dict[str, Row] = {}
        self.history: dict[tuple[str, str], list[HistoryEvent]] = {}
        self.head = b""
        self.checkpoint = 0
        """How many records the rows stand for."""
        self.posted: list[tuple[int, m.Message]] = []
        """Every message in a committed record, with its destination."""
        self.core = Twin(PartitionState(partition=number, partitions=partitions))

    # -- commits and checkpoints ---------------------------------------------------------------

    def commit(self) -> list[Effect]:
        """Make durable what has gathered, and return what may happen now."""
        sealed = self.core.seal()
        if sealed.entries:
            self.journal.append(codec.encode_record(sealed.entries))
            self.posted += self.core.posted
            self.core.posted.clear()
        return sealed.effects

    def write_rows(self) -> None:
        """Checkpoint at the newest record. There must be nothing uncommitted."""
        core = self.core
        assert not core.entries
        for instance_id in core.deleted:
            self.rows.pop(instance_id, None)
            self._reset(instance_id, "")
        for instance_id in core.dirty:
            entity = core.entities.get(instance_id)
            if entity is not None:
                self.rows[instance_id] = Row(
                    "", entity.is_active, entity.next_due, codec.encode_entity(entity)
                )
                continue
            instance = core.instances[instance_id]
            if instance.stale_history:
                self._reset(instance_id, instance.execution_id)
                instance.stale_history = False
            key = (instance_id, instance.execution_id)
            self.history.setdefault(key, []).extend(instance.tail)
            instance.tail = []
            self.rows[instance_id] = Row(
                instance.execution_id,
                instance.is_active,
                instance.next_due,
                codec.encode_instance(instance),
            )
        state = core.state
        self.head = codec.encode_head(
            Head(
                state.partition,
                state.partitions,
                state.epoch,
                state.lanes,
                state.received,
                state.sessions,
            )
        )
        core.dirty, core.deleted, core.tombstones = {}, {}, {}
        self.checkpoint = len(self.journal)

    def _reset(self, instance_id: str, keep: str) -> None:
        gone = [key for key in self.history if key[0] == instance_id and key[1] != keep]
        for key in gone:
            del self.history[key]

    # -- memory --------------------------------------------------------------------------------

    def load(self, instance_id: str) -> None:
        """Bring an instance into memory if there is one."""
        core = self.core
        row = self.rows.get(instance_id)
        if row is not None and not core.holds(instance_id) and instance_id not in core.tombstones:
            core.admit(codec.decode_resident(instance_id, row.state))

    def evict(self, instance_id: str) -> bool:
        """Drop an instance from memory if that is allowed."""
        if not self.core.can_evict(instance_id):
            return False
        self.core.evict(instance_id)
        return True

    def recover(self, epoch: int, now: int) -> None:
        """Forget memory; rebuild it from the checkpoint and the records after it."""
        self.core = Twin(self._stored_state())
        for instance_id, row in self.rows.items():
            if row.active:
                self.core.admit(codec.decode_resident(instance_id, row.state))
            elif row.next_due is not None:
                self.core.timers.add(row.next_due, instance_id, WHOLE)
        for record in self.journal[self.checkpoint :]:
            for entry in codec.decode_record(record):
                instance_id_or_none = e.instance_of(entry)
                if instance_id_or_none is not None:
                    self.load(instance_id_or_none)
                self.core.replay([entry])
        self.core.posted.clear()
        self.core.take(epoch, now)

    def _stored_state(self) -> PartitionState:
        if not self.head:
            return PartitionState(partition=self.number, partitions=self.partitions)
        head = codec.decode_head(self.head)
        fields = {name: getattr(head, name) for name in Head.__struct_fields__}
        return PartitionState(**fields)

    # -- looking -------------------------------------------------------------------------------

    def instances(self) -> dict[str, Instance]:
        """Return all instances, in memory or not."""
        core = self.core
        absent = {
            instance_id: codec.decode_instance(row.state)
            for instance_id, row in self.rows.items()
            if instance_id not in {**core.instances, **core.tombstones}
            and not is_entity_id(instance_id)
        }
        return {**core.instances, **absent}

    def entities(self) -> dict[str, Entity]:
        """Return all entities, in memory or not."""
        core = self.core
        absent = {
            instance_id: codec.decode_entity(row.state)
            for instance_id, row in self.rows.items()
            if instance_id not in {**core.entities, **core.tombstones} and is_entity_id(instance_id)
        }
        return {**core.entities, **absent}

    def whole_history(self, instance: Instance) -> list[HistoryEvent]:
        """Return all events of the current execution."""
        stored = self.history.get((instance.instance_id, instance.execution_id), [])
        return [*stored, *instance.tail]

    def entries(self) -> list[e.Entry]:
        """Return everything that is durable."""
        return [entry for record in self.journal for entry in codec.decode_record(record)]

    def replayed(self) -> Twin:
        """Return a partition built from the whole journal, without any checkpoint."""
        state = PartitionState(partition=self.number, partitions=self.partitions)
        core = Twin(state)
        core.replay(self.entries())
        return core


class World:
    """Nodes, clients, activities and the network between them."""

    def __init__(self, partitions: int = 1) -> None:
        self.now = START
        self.nodes = [Node(number, partitions) for number in range(partitions)]
        self.epoch = 1
        self.frames: list[Frame] = []
        self.acks: list[tuple[int, int, int]] = []
        """(source, destination, last): for the source of a stream."""
        self.sent: dict[tuple[int, int], int] = {}
        """Stream → the last message sent on it by the present owner of its source."""
        self.running: list[RunActivity] = []
        self.canceled: list[CancelActivity] = []
        self.answers: dict[object, list[object]] = {}
        """By what was passed in as `to`."""
        self.work: list[WorkItem] = []
        """Turns handed out and not taken back."""
        self.entity_work: list[EntityWork] = []
        for node in self.nodes:
            node.core.take(self.epoch, self.now)
            self.commit(node)

    def node_of(self, instance_id: str) -> Node:
        """Return the node that an instance lives on, with the instance loaded."""
        node = self.nodes[partition_of(instance_id, len(self.nodes))]
        node.load(instance_id)
        return node

    def entity(self, instance_id: str) -> Entity:
        """Return an entity that exists."""
        return self.node_of(instance_id).core.entities[instance_id]

    def instance(self, instance_id: str) -> Instance:
        """Return an instance that exists."""
        return self.node_of(instance_id).core.instances[instance_id]

    # -- durable, then visible -----------------------------------------------------------------

    def commit(self, node: Node) -> list[Effect]:
        """Commit, and perform the effects."""
        effects = node.commit()
        for effect in effects:
            self._perform(node, effect)
        self.running += node.core.speculative
        node.core.speculative.clear()
        return effects

    def _perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case Reply(to, result):
                self.answers.setdefault(to, []).append(result)
            case RunActivity():
                self.running.append(effect)
            case CancelActivity():
                self.canceled.append(effect)
            case Send(destination, last):
                self.send(node, destination, last, self.sent.get((node.number, destination), 0))
            case Confirm(source, last):
                self.acks.append((source, node.number, last))
            case Observed(tell):
                tell()

    def send(self, node: Node, destination: int, last: int, after: int = 0) -> None:
        """Put what a lane still has behind `after` up to `last` on the network."""
        lane = node.core.state.lanes[destination]
        after = max(after, lane.acknowledged)
        messages = tuple(lane.messages[after - lane.acknowledged : last - lane.acknowledged])
        self.sent[node.number, destination] = last
        if messages:
            frame = Frame(node.number, destination, after + 1, messages)
            # Through bytes, as on a wire.
            self.frames.append(msgspec.json.decode(msgspec.json.encode(frame), type=Frame))

    def commit_all(self) -> None:
        """Commit everywhere."""
        for node in self.nodes:
            self.commit(node)

    # -- inputs --------------------------------------------------------------------------------

    def request(
        self, instance_id: str, request: r.Request, origin: r.Origin, to: object = None
    ) -> object:
        """Ask for something, commit, and return the answer; None if there is none yet."""
        node = self.node_of(instance_id)
        to = object() if to is None else to
        if isinstance(request, r.Rewind):
            instance = node.core.instances.get(instance_id)
            history = [] if instance is None else node.whole_history(instance)
            node.core.rewind(instance_id, request, history, origin, self.now, to)
        else:
            node.core.request(instance_id, request, origin, self.now, to)
        self.commit(node)
        return self.answers.get(to, [None])[-1]

    def next_work(self, node: Node) -> WorkItem | None:
        """Take the next turn of a node in hand."""
        item = node.core.next_work(self.now)
        if item is not None:
            self.work.append(item)
        return item

    def step(self, step: Step) -> bool:
        """Take a turn back."""
        return self.node_of(step.instance_id).core.step(step)

    def next_entity_work(self, node: Node) -> EntityWork | None:
        """Take the next operations of a node in hand."""
        work = node.core.next_entity_work(self.now)
        if work is not None:
            self.entity_work.append(work)
        return work

    def step_entity(self, step: EntityStep) -> bool:
        """Take operations back."""
        return self.node_of(step.instance_id).core.step_entity(step)

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure, draw: float = 0.5) -> None:
        """Take an outcome."""
        self.node_of(run.instance_id).core.activity_ended(run, outcome, self.now, draw)

    def deliver(self, frame: Frame, draw: float = 0.5) -> int | None:
        """Hand a frame to its destination; return what that misses."""
        node = self.nodes[frame.destination]
        histories: dict[str, list[HistoryEvent]] = {}
        for message in frame.messages:
            node.load(message.instance_id)
            failed = node.core.to_rewind(message)
            if failed is not None:
                histories[message.instance_id] = node.whole_history(failed)
        return node.core.receive(
            frame.source, frame.first, frame.messages, self.now, draw, histories
        )

    def acknowledge(self, ack: tuple[int, int, int]) -> None:
        """Tell the source of a stream what is committed at its destination."""
        source, destination, last = ack
        self.nodes[source].core.acknowledged(destination, last)

    def fire(self, node: Node, limit: int = 1000) -> None:
        """Fire what is due, and load whom it concerns until nothing more is."""
        absent = node.core.fire(self.now, limit)
        while absent:
            for instance_id in absent:
                node.load(instance_id)
            absent = node.core.fire(self.now, limit)

    def exchange(self) -> None:
        """Deliver messages and acknowledgements until none is left."""
        while self.frames or self.acks:
            frames, self.frames = self.frames, []
            for frame in frames:
                self.deliver(frame)
            self.commit_all()
            acks, self.acks = self.acks, []
            for ack in acks:
                self.acknowledge(ack)
            self.commit_all()

    def crash(self, node: Node) -> list[Effect]:
        """Lose a node's memory and let the next owner recover it; return what that releases."""
        self.epoch += 1
        number = node.number
        self.work = [i for i in self.work if self.node_number(i.instance_id) != number]
        kept = [w for w in self.entity_work if self.node_number(w.instance_id) != number]
        self.entity_work = kept
        self.running = [a for a in self.running if self.node_number(a.instance_id) != number]
        self.sent = {stream: last for stream, last in self.sent.items() if stream[0] != number}
        node.recover(self.epoch, self.now)
        speculative = list(node.core.speculative)
        return [*self.commit(node), *speculative]

    def node_number(self, instance_id: str) -> int:
        """Return which partition an instance lives on."""
        return partition_of(instance_id, len(self.nodes))
