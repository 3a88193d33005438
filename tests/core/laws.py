"""What must hold of a `World` at any moment, told apart from how the engine does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core import codec, entries as e, history as h, messages as m
from shardrt.core.effects import Effect, RunActivity, Send
from shardrt.core.entity import is_entity_id
from shardrt.core.timers import WHOLE, Item
from tests.core import entity_laws, limit_laws
from tests.core.twin import assert_instances_equal, without_instances

if TYPE_CHECKING:
    from shardrt.core.state import Instance
    from tests.core.world import Node, World

ENDINGS = (h.ExecutionCompleted, h.ExecutionTerminated)
OUTCOMES = (
    h.TaskCompleted,
    h.TaskFailed,
    h.TimerFired,
    h.SubOrchestrationInstanceCompleted,
    h.SubOrchestrationInstanceFailed,
    h.EntityOperationCompleted,
    h.EntityOperationFailed,
    h.EntityLockGranted,
)
SCHEDULED = (
    h.TaskScheduled,
    h.TimerCreated,
    h.SubOrchestrationInstanceCreated,
    h.EntityOperationCalled,
    h.EntityLockRequested,
)


def check(world: World) -> None:
    """Check everything that can be checked at any time."""
    for node in world.nodes:
        check_indexes(node)
        for instance in node.instances().values():
            check_instance(node, instance)
        check_origins(node)
        if not node.core.entries:
            check_lanes(node)
    check_streams(world)
    entity_laws.check(world)
    limit_laws.check(world)


# -- one instance ----------------------------------------------------------------------------


def check_instance(node: Node, instance: Instance) -> None:
    """Check that state and history of an instance tell the same story."""
    history = node.whole_history(instance)
    assert instance.history_length == len(history)
    assert isinstance(history[0], h.ExecutionStarted)
    check_turns(instance, history)
    ended = [i for i, event in enumerate(history) if isinstance(event, ENDINGS)]
    if instance.is_final:
        assert ended == [len(history) - 1], "something follows the end"
        under_way = (instance.timers, instance.pending, instance.children)
        assert under_way == ({}, {}, {})
        assert (instance.calls, instance.locks) == ({}, {})
        # What a failed one had not seen is kept: it may be rewound.
        assert not instance.inbox or instance.status is h.Status.FAILED
        assert not instance.leaving or instance.status is h.Status.FAILED
        assert not instance.has_news()
        assert not instance.is_active
    else:
        assert ended == []
        check_tasks(instance, history)
        cancels = [each for each in (*history, *instance.inbox) if is_cancel(each)]
        assert len(cancels) == instance.cancel_requested, "lost, or delivered twice"


def is_cancel(event: h.HistoryEvent) -> bool:
    return isinstance(event, h.CancelRequested)


def check_turns(instance: Instance, history: list[h.HistoryEvent]) -> None:
    """Check that turns are counted, and that time never goes back for the code."""
    turns, now = 0, 0
    for event in history:
        if isinstance(event, h.OrchestratorStarted):
            assert event.at >= now, "time goes back"
            turns, now = turns + 1, event.at
        elif isinstance(event, (*OUTCOMES, h.EventRaised, h.CancelRequested)):
            if not turns:  # cancelled before it had begun
                assert instance.status is h.Status.CANCELED
                continue
            assert event.at <= now, "it was seen before it arrived"
    assert instance.turn == turns


def check_tasks(instance: Instance, history: list[h.HistoryEvent]) -> None:
    """Check that each task has one fate: open, over once, or cancelled."""
    scheduled: dict[int, h.HistoryEvent] = {}
    over: list[int] = []
    for event in [*history, *instance.inbox]:
        if isinstance(event, SCHEDULED):
            scheduled[event.task_id] = event
        elif isinstance(event, OUTCOMES):
            over.append(event.task_id)
            cause = scheduled[event.task_id]
            if isinstance(event, h.TimerFired):
                assert isinstance(cause, h.TimerCreated)
                assert event.at >= cause.fire_at, "a timer fired early"
    assert len(over) == len(set(over)), "a task ended twice"
    cancelled = {
        event.task_id for event in history if isinstance(event, (h.TaskCanceled, h.TimerCanceled))
    }
    code_timers = {task_id for task_id in instance.timers if task_id >= 0}
    queuing = {each.task_id for each in instance.locks.values() if not each.granted}
    under_way = code_timers | set(instance.pending) | set(instance.children)
    under_way |= set(instance.calls) | queuing
    assert set(instance.leaving) <= cancelled
    assert under_way == set(scheduled) - set(over) - cancelled


def events_of(node: Node, instance: Instance) -> list[bytes]:
    """Return the payloads of all external events, seen or not, in order."""
    arrived = [*node.whole_history(instance), *instance.inbox]
    return [bytes(event.data) for event in arrived if isinstance(event, h.EventRaised)]


# -- what is derived -------------------------------------------------------------------------


def timers_of(instance: Instance) -> set[Item]:
    """Return what the index must hold of an instance in memory."""
    name = instance.instance_id
    items = {(due, name, task_id) for task_id, due in instance.timers.items()}
    for calls in (instance.pending, instance.children):
        for task_id, call in calls.items():
            due = call.retry_at
            if due is not None:
                items.add((due, name, task_id))
    return items


def check_indexes(node: Node) -> None:
    """Check that nothing is forgotten: each timer is indexed, each instance with news called."""
    core = node.core
    indexed = set(core.timers._heap)
    for instance_id, instance in core.instances.items():
        assert timers_of(instance) <= indexed
        if instance.has_news() and not instance.parked:
            out = core.out.get(instance_id)
            is_out = out is not None and out.execution_id == instance.execution_id
            assert is_out or core.is_due(instance_id), f"{instance_id} is never called"
    for instance_id, row in node.rows.items():
        if core.holds(instance_id) or instance_id in core.tombstones:
            continue
        if row.next_due is not None:
            mine = [due for due, name, task in indexed if (name, task) == (instance_id, WHOLE)]
            assert min(mine) <= row.next_due, f"{instance_id} sleeps for ever"
        if is_entity_id(instance_id):
            continue
        absent = codec.decode_instance(row.state)
        pending = absent.pending.values()
        assert all(each.retry_at is not None or each.is_asleep for each in pending)
    assert core.ready.keys() | core.starting.keys() <= core.instances.keys()
    assert not core.ready.keys() & core.starting.keys()


# -- between partitions ------------------------------------------------------------------------


def check_lanes(node: Node) -> None:
    """Check that a lane holds exactly what was posted and is not acknowledged."""
    for destination, lane in node.core.state.lanes.items():
        posted = [message for to, message in node.posted if to == destination]
        assert lane.last == len(posted)
        assert lane.messages == posted[lane.acknowledged :]


def check_streams(world: World) -> None:
    """Check (I6) that what was applied is a prefix of what was posted, once each, in order."""
    for destination in world.nodes:
        applied: dict[int, list[m.Message]] = {}
        for entry in destination.entries():
            if isinstance(entry, e.Received):
                stream = applied.setdefault(entry.source, [])
                assert entry.seq == len(stream) + 1
                stream.append(entry.message)
        for source in world.nodes:
            posted = [each for to, each in source.posted if to == destination.number]
            received = applied.get(source.number, [])
            assert received == posted[: len(received)]
            lane = source.core.state.lanes.get(destination.number)
            assert lane is None or lane.acknowledged <= len(received), "forgotten too early"


def check_origins(node: Node) -> None:
    """Check (I7) that no request was ever applied twice."""
    seen: set[tuple[str, int]] = set()
    for entry in node.entries():
        origin = (
            entry.created_by if isinstance(entry, e.Created) else getattr(entry, "origin", None)
        )
        if origin is not None:
            assert (origin.client, origin.seq) not in seen, f"{entry} was applied before"
            seen.add((origin.client, origin.seq))


# -- recovery ----------------------------------------------------------------------------------


def check_replay(node: Node) -> None:
    """Check that checkpoint, rows, tail and memory together are what the journal alone says."""
    assert not node.core.entries
    replayed, found = node.replayed(), node.instances()
    assert found.keys() == replayed.instances.keys()
    for instance_id, expected in replayed.instances.items():
        assert node.whole_history(found[instance_id]) == expected.tail
        assert_instances_equal(bare(found[instance_id]), bare(expected))
    assert node.entities() == replayed.state.entities
    assert without_instances(node.core.state) == without_instances(replayed.state)
    entity_laws.check_journal(node)
    limit_laws.check_journal(node)


def bare(instance: Instance) -> Instance:
    """Return a copy without what a checkpoint moves to the store."""
    copy = codec.decode_instance(codec.encode_instance(instance))
    copy.stale_history = False
    return copy


def check_taken(node: Node, effects: list[Effect]) -> None:
    """Check that a new owner puts exactly the unfinished under way again."""
    unfinished = [
        RunActivity(
            instance.instance_id,
            instance.execution_id,
            task_id,
            pending.attempt,
            pending.name,
            pending.input,
            pending.timeout,
        )
        for instance in node.instances().values()
        for task_id, pending in instance.pending.items()
        if pending.retry_at is None and (pending.limit is None or pending.granted)
    ]
    unacknowledged = [
        Send(destination, lane.last)
        for destination, lane in node.core.state.lanes.items()
        if lane.messages
    ]
    expected = [*unfinished, *unacknowledged]
    assert len(effects) == len(expected)
    assert all(effect in expected for effect in effects)
