"""Instances leave memory and come back, and nothing about them is forgotten."""

from __future__ import annotations

import pytest

from shardrt.core import codec, entries as e, history as h, requests as r
from shardrt.core.work import Completed, Continued
from tests.core.acts import (
    BROKEN,
    ONE,
    SECOND,
    TWO,
    activity,
    arrivals,
    ask,
    child,
    run_of,
    start,
    take,
    turn,
)
from tests.core.laws import check_replay
from tests.core.world import START, World

RETRY = h.Retry(max_attempts=2, first_interval=SECOND)


def waiting(*actions: h.Action) -> World:
    """Return a world in which ``a`` has taken a turn and is in the store."""
    world = World()
    start(world)
    turn(world, *actions)
    world.nodes[0].write_rows()
    return world


def test_an_evicted_instance_is_as_it_was_when_it_comes_back():
    world = waiting(h.TimerCreated(0, START + SECOND), child(1))
    before = codec.encode_instance(world.instance("a"))
    assert world.nodes[0].evict("a")
    assert "a" not in world.nodes[0].core.instances
    assert codec.encode_instance(world.instance("a")) == before


def test_an_event_finds_an_evicted_instance():
    world = waiting()
    world.nodes[0].evict("a")
    assert ask(world, r.Raise("go", TWO), 2) == r.Done()
    assert take(world).arrivals == (h.EventRaised(START, "go", TWO),)


def test_a_timer_wakes_an_evicted_instance():
    world = waiting(h.TimerCreated(0, START + SECOND), h.TimerCreated(1, START + 2 * SECOND))
    world.nodes[0].evict("a")
    world.now += SECOND
    assert world.nodes[0].core.fire(world.now, 10) == ["a"]
    world.nodes[0].load("a")
    assert world.nodes[0].core.fire(world.now, 10) == []
    assert arrivals(world) == (h.TimerFired(0, START + SECOND),)


def test_a_delayed_start_wakes_an_evicted_instance():
    world = World()
    start(world, start_at=START + SECOND)
    world.nodes[0].write_rows()
    world.nodes[0].evict("a")
    world.now += SECOND
    world.fire(world.nodes[0])
    assert take(world).turn == 0


def test_an_attempt_wakes_an_evicted_instance():
    world = World()
    start(world)
    turn(world, activity(0, RETRY))
    world.activity_ended(run_of(world, 0), BROKEN)
    world.commit_all()
    world.nodes[0].write_rows()
    assert world.nodes[0].evict("a")
    world.now += SECOND
    world.fire(world.nodes[0])
    world.commit_all()
    assert [run.attempt for run in world.running] == [2]


def test_a_timer_that_came_and_went_with_its_instance_fires_once():
    world = waiting(h.TimerCreated(0, START + SECOND))
    node = world.nodes[0]
    for _ in range(3):
        node.evict("a")
        node.load("a")
    world.now += SECOND
    world.fire(node)
    world.commit_all()
    assert node.entries()[-1] == e.Fired(world.now, "a", (0,))


def test_coming_and_going_does_not_fill_the_index():
    world = waiting(h.TimerCreated(0, START + SECOND))
    node = world.nodes[0]
    for _ in range(2000):
        node.evict("a")
        node.load("a")
        node.core.compact_timers()
    assert len(node.core.timers) <= 1024


def test_what_is_under_way_stays_in_memory():
    world = World()
    node = world.nodes[0]
    start(world)
    assert not node.core.can_evict("a"), "dirty"
    node.write_rows()
    assert not node.core.can_evict("a"), "has news"
    item = take(world)
    assert not node.core.can_evict("a"), "a turn is out"
    ask(world, r.Terminate(), 2)
    node.write_rows()
    assert node.core.can_evict("a"), "has ended; the turn is obsolete"
    assert item.turn == 0


def test_an_instance_whose_activity_runs_stays_in_memory():
    world = waiting(activity(0))
    with pytest.raises(AssertionError, match="needed in memory"):
        world.nodes[0].core.evict("a")


def test_an_instance_is_not_loaded_over_itself():
    world = waiting()
    row = world.nodes[0].rows["a"]
    with pytest.raises(AssertionError, match="a is in memory"):
        world.nodes[0].core.admit(codec.decode_instance(row.state))


def test_a_purged_instance_is_not_loaded_again_before_the_store_has_heard_of_it():
    world = waiting()
    ask(world, r.Terminate(), 2)
    world.nodes[0].write_rows()
    ask(world, r.Purge(), 3)
    row = world.nodes[0].rows["a"]
    with pytest.raises(AssertionError, match="a was purged"):
        world.nodes[0].core.admit(codec.decode_instance(row.state))
    assert ask(world, r.Get(), 4) is None


def test_the_timer_of_a_purged_instance_wakes_nobody():
    world = waiting(h.TimerCreated(0, START + SECOND))
    node = world.nodes[0]
    node.evict("a")
    ask(world, r.Terminate(), 2)
    ask(world, r.Purge(), 3)
    assert node.core.fire(START + 9 * SECOND, 10) == []


@pytest.mark.parametrize("outcome", [Completed(), Continued(TWO)])
def test_rows_and_tail_are_as_good_as_the_whole_journal(outcome: Completed | Continued):
    world = waiting(activity(0))
    node = world.nodes[0]
    world.activity_ended(run_of(world, 0), TWO)
    turn(world, h.TimerCreated(1, START + SECOND), outcome=outcome)
    check_replay(node)
    world.crash(node)
    check_replay(node)
    node.write_rows()
    world.crash(node)
    check_replay(node)


def test_one_that_was_purged_and_created_again_has_the_new_history_only():
    world = waiting()
    node = world.nodes[0]
    ask(world, r.Terminate(), 2)
    node.write_rows()
    ask(world, r.Purge(), 3)
    start(world, seq=4)
    check_replay(node)
    world.crash(node)
    node.write_rows()
    world.crash(node)
    assert node.whole_history(world.instance("a")) == [h.ExecutionStarted(START, "code", ONE)]


def test_what_was_not_durable_never_happened():
    world = waiting()
    node = world.nodes[0]
    node.core.request("a", r.Raise("go"), r.Origin("ann", 2, 0), START, "me")
    world.crash(node)
    assert arrivals(world) == ()
    assert "me" not in world.answers
