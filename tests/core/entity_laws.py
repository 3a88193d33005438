"""What must hold of entities and critical sections at any moment.

Operations in these tests have an input of their own, and return it. So the journal alone tells
what each entity was asked for, and what it has done, in which order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core import entries as e, messages as m
from shardrt.core.entity import Entity, LockRequest, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.core.world import Node, World


def check(world: World) -> None:
    """Check everything that can be checked at any time."""
    for node in world.nodes:
        check_indexes(node)
        for instance in node.instances().values():
            for name, section in instance.locks.items():
                assert section.entities
                assert list(section.entities) == sorted(set(section.entities))
                if section.granted:
                    for entity_id in section.entities:
                        check_held(world, entity_id, name)


def check_held(world: World, entity_id: str, section: str) -> None:
    """Check that a section has what it was granted. So no two ever have the same."""
    entity = world.nodes[world.node_number(entity_id)].entities()[entity_id]
    assert entity.lock is not None, f"{section} was granted {entity_id}, but it is free"
    assert entity.lock.section == section
    assert not entity.lock.released


def check_indexes(node: Node) -> None:
    """Check that nothing is forgotten: each timer is indexed, each operation carried out."""
    core = node.core
    indexed = set(core.timers._heap)
    for instance_id, entity in core.entities.items():
        timers = {(each.at, instance_id, number) for number, each in entity.delayed.items()}
        assert timers <= indexed
        if entity.lock is None and entity.inbox:
            assert not isinstance(entity.inbox[0], LockRequest), (
                "nobody gives it to its next holder"
            )
        if entity.has_news() and not entity.parked:
            out = core.entities_out.get(instance_id)
            is_out = out is not None and out.turn == entity.turn
            assert is_out or instance_id in core.entities_ready, f"{instance_id} is never called"


def check_journal(node: Node) -> None:
    """Check that each operation is done once at most, and those of one sender in order."""
    entities = node.entities()
    for instance_id in {*_asked_entities(node)}:
        asked = list(_asked(node, instance_id))
        done = list(_done(node, instance_id))
        entity = entities.get(instance_id)
        waiting = [] if entity is None else list(_waiting(entity))
        everything = [data for _, data in asked]
        assert sorted(done + waiting) == sorted(everything), "an operation was lost or repeated"
        # Who is rewound calls again if it has not heard the answer: then with the same data.
        positions: dict[bytes, list[int]] = {}
        for index, data in enumerate(done):
            positions.setdefault(data, []).append(index)
        for sender in {sender for sender, _ in asked if sender}:
            mine = [positions[d].pop(0) for who, d in asked if who == sender and positions.get(d)]
            assert mine == sorted(mine), f"{instance_id}: what {sender} asked for is out of order"


def _asked_entities(node: Node) -> Iterator[str]:
    for entry in node.entries():
        if isinstance(entry, e.EntityAsked):
            yield entry.instance_id
        elif isinstance(entry, e.Received) and isinstance(
            entry.message, (m.CallEntity, m.SignalEntity)
        ):
            yield entry.message.instance_id


def _asked(node: Node, instance_id: str) -> Iterator[tuple[str, bytes]]:
    """Yield who asked for what; delayed signals have no sender, as they have no order."""
    for entry in node.entries():
        match entry:
            case e.EntityAsked() if entry.instance_id == instance_id:
                is_late = entry.fire_at is not None and entry.fire_at > entry.at
                yield "" if is_late else "clients", bytes(entry.input)
            case e.Received(message=m.CallEntity() as message):
                if message.instance_id == instance_id:
                    yield f"{entry.source} {message.section}", bytes(message.input)
            case e.Received(message=m.SignalEntity() as message):
                if message.instance_id == instance_id:
                    is_late = message.fire_at is not None and message.fire_at > entry.at
                    yield "" if is_late else f"{entry.source} ", bytes(message.input)
            case _:
                pass


def _done(node: Node, instance_id: str) -> Iterator[bytes]:
    for entry in node.entries():
        if isinstance(entry, e.EntityStepped) and entry.instance_id == instance_id:
            for result in entry.results:
                yield bytes(result.result)


def _waiting(entity: Entity) -> Iterator[bytes]:
    delayed = [each.operation for each in entity.delayed.values()]
    held = [] if entity.lock is None else entity.lock.inbox
    for item in [*entity.inbox, *held, *delayed]:
        if isinstance(item, Operation):
            yield bytes(item.input)
