"""Streams between partitions: exactly once, in order, whatever the network does."""

from __future__ import annotations

import pytest
from msgspec import Raw

from shardrt.core import entries as e, history as h, messages as m
from shardrt.core.effects import Confirm, Send
from tests.core.acts import activity, arrivals, data_of, start, step_of, take, turn
from tests.core.world import START, Frame, World


def event(data: int) -> m.DeliverEvent:
    return m.DeliverEvent("b!1", "hi", Raw(b"%d" % data))


def receiver() -> World:
    """Return a world in which ``b!1`` waits for events."""
    world = World(2)
    start(world, "b!1")
    return world


def seen(world: World) -> list[bytes]:
    return data_of(arrivals(world, "b!1"))


def deliver(world: World, first: int, *data: int) -> int | None:
    return world.deliver(Frame(0, 1, first, tuple(map(event, data))))


def test_a_message_leaves_once_its_record_is_durable():
    world = World(2)
    start(world, "a!0")
    world.step(step_of(take(world, "a!0"), h.EventSent(0, "b!1", "hi", Raw(b"1"))))
    assert world.frames == []
    world.commit_all()
    assert world.frames == [Frame(0, 1, 1, (event(1),))]


def test_a_send_says_how_far_the_outbox_may_leave():
    world = World(2)
    node = world.nodes[0]
    start(world, "a!0")
    start(world, "c!0", seq=2)
    world.step(step_of(take(world, "a!0"), h.EventSent(0, "b!1", "hi", Raw(b"1"))))
    sealed = node.core.seal()
    world.step(step_of(take(world, "c!0"), h.EventSent(0, "b!1", "hi", Raw(b"2"))))
    assert sealed.effects == [Send(1, 1)]
    assert node.core.seal().effects == [Send(1, 2)]


def test_messages_are_confirmed_with_the_record_that_holds_them():
    world = receiver()
    core = world.nodes[1].core
    deliver(world, 1, 1, 2)
    sealed = core.seal()
    assert sealed.entries == [
        e.Received(START, 0, 1, event(1)),
        e.Received(START, 0, 2, event(2)),
    ]
    assert sealed.effects == [Confirm(0, 2)]


def test_what_was_applied_is_only_confirmed_again():
    world = receiver()
    deliver(world, 1, 1, 2)
    world.commit_all()
    assert deliver(world, 1, 1, 2) is None
    sealed = world.nodes[1].core.seal()
    assert (sealed.entries, sealed.effects) == ([], [Confirm(0, 2)])
    assert seen(world) == [b"1", b"2"]


def test_of_a_frame_that_is_partly_known_the_rest_is_applied():
    world = receiver()
    deliver(world, 1, 1, 2)
    deliver(world, 2, 2, 3)
    assert seen(world) == [b"1", b"2", b"3"]


def test_a_gap_is_asked_for_and_nothing_behind_it_applied():
    world = receiver()
    deliver(world, 1, 1)
    assert deliver(world, 3, 3) == 2
    assert seen(world) == [b"1"]
    assert world.nodes[1].core.seal().effects == [Confirm(0, 1)]


def test_streams_of_different_sources_are_counted_apart():
    world = World(3)
    for source in (0, 2):
        world.deliver(Frame(source, 1, 1, (event(source),)))
    assert world.nodes[1].core.state.received == {0: 1, 2: 1}


def test_an_acknowledgement_forgets_exactly_what_it_covers():
    world = World(2)
    core = world.nodes[0].core
    start(world, "a!0")
    turn(
        world,
        *[h.EventSent(n, "b!1", "hi", Raw(b"%d" % n)) for n in range(3)],
        instance_id="a!0",
    )
    lane = core.state.lanes[1]
    core.acknowledged(1, 2)
    assert (lane.acknowledged, lane.messages, lane.last) == (2, [event(2)], 3)


@pytest.mark.parametrize(("destination", "last"), [(1, 0), (1, 1), (1, 3), (0, 1)])
def test_an_acknowledgement_that_says_nothing_new_is_ignored(destination: int, last: int):
    world = World(2)
    core = world.nodes[0].core
    start(world, "a!0")
    turn(
        world,
        *[h.EventSent(n, "b!1", "hi", Raw(b"0")) for n in range(2)],
        instance_id="a!0",
    )
    core.acknowledged(1, 1)
    world.commit_all()
    core.acknowledged(destination, last)
    assert core.entries == []


def test_a_new_owner_sends_everything_unacknowledged_again():
    world = World(2)
    start(world, "a!0")
    turn(
        world,
        *[h.EventSent(n, "b!1", "hi", Raw(b"%d" % n)) for n in range(3)],
        instance_id="a!0",
    )
    world.nodes[0].core.acknowledged(1, 1)
    world.commit_all()
    world.frames.clear()
    assert world.crash(world.nodes[0]) == [Send(1, 3)]
    assert world.frames == [Frame(0, 1, 2, (event(1), event(2)))]


def test_a_partition_talks_to_itself_the_same_way():
    world = World(1)
    start(world, "a")
    start(world, "b", seq=2)
    turn(world, h.EventSent(0, "b", "hi", Raw(b"1")), instance_id="a")
    assert arrivals(world, "b") == ()
    world.exchange()
    assert arrivals(world, "b") == (h.EventRaised(START, "hi", Raw(b"1")),)
    assert world.nodes[0].core.state.lanes[0].messages == []


@pytest.mark.parametrize(
    "entry",
    [
        e.Received(START, 0, 3, event(1)),
        e.Received(START, 0, 1, event(1)),
        e.Acknowledged(0, 1),
        e.Acknowledged(0, 9),
        e.Arrived("b!1", h.TaskCompleted(9, START, Raw(b"0"))),
        e.Fired(START, "b!1", (9,)),
        e.Deleted(START, "b!1"),
        e.Created(START, "b!1", "x", "code"),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_an_entry_that_does_not_fit_stops_the_partition(entry: e.Entry):
    world = receiver()
    deliver(world, 1, 1)
    turn(world, activity(0), h.EventSent(1, "a!0", "hi", Raw(b"0")), instance_id="b!1")
    core = world.nodes[1].core
    core.acknowledged(0, 1)
    with pytest.raises((AssertionError, KeyError)):
        core.apply(entry)
