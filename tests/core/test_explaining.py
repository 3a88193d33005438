"""Why an instance does not move: everything that it waits for is named."""

from __future__ import annotations

from shardrt.core import entity as en, history as h, requests as r
from shardrt.core.explaining import AWAITED_MAX, explain, has_more_in_history
from shardrt.core.requests import Awaited
from shardrt.core.work import Completed, Parked
from tests.core.acts import (
    BROKEN,
    ONE,
    SECOND,
    activity,
    ask,
    child,
    run_of,
    start,
    turn,
)
from tests.core.world import START, World

RETRY = h.Retry(max_attempts=3, first_interval=SECOND)


def awaited(world: World, events: tuple[str, ...] | None = ()) -> list[Awaited]:
    explanation = explain(world.node_of("a").core, "a", events)
    assert explanation is not None
    return list(explanation.awaited)


def test_of_nobody_there_is_nothing_to_explain():
    assert explain(World().nodes[0].core, "a", ()) is None


def test_what_has_ended_waits_for_nothing():
    world = World()
    start(world)
    turn(world, outcome=Completed(ONE))
    assert awaited(world, None) == []


def test_calls_timers_and_events_are_named():
    world = World()
    start(world)
    turn(world, activity(1), activity(2, RETRY), child(3, "b", RETRY), h.TimerCreated(4, START + 7))
    world.activity_ended(run_of(world, 2), BROKEN)
    assert awaited(world, ("go",)) == [
        Awaited(kind="event", name="go"),
        Awaited(kind="activity", name="act", task_id=1, attempt=1, since=START),
        Awaited(
            kind="activity",
            name="act",
            task_id=2,
            attempt=2,
            since=START,
            due=world.instance("a").pending[2].retry_at,
        ),
        Awaited(kind="child", instance_id="b", name="kid", task_id=3, attempt=1, since=START),
        Awaited(kind="timer", task_id=4, due=START + 7),
    ]


def test_events_of_one_that_is_not_resident_are_not_known():
    world = World()
    start(world)
    turn(world)
    assert awaited(world, None) == [Awaited(kind="events")]


def test_events_that_nobody_waits_for_are_counted_by_name():
    world = World()
    start(world)
    turn(world)
    explanation = explain(world.node_of("a").core, "a", ("approval",), {"aproval": 1})
    assert explanation is not None
    assert list(explanation.awaited) == [
        Awaited(kind="event", name="approval"),
        Awaited(kind="unclaimed", name="aproval", reason="1 of them"),
    ]


def test_a_delayed_start_is_told_with_its_time():
    world = World()
    start(world, start_at=START + SECOND)
    assert awaited(world, None) == [Awaited(kind="start", since=START, due=START + SECOND)]


def test_suspended_parked_and_ready_ones_say_so():
    world = World()
    start(world)
    assert awaited(world, None) == [Awaited(kind="turn", since=START)]
    turn(world, outcome=Parked("no such code"))
    ask(world, r.Suspend("lunch"), 2)
    assert awaited(world, None) == [
        Awaited(kind="resume", reason="lunch"),
        Awaited(kind="code", name="code", reason="no such code"),
    ]


def test_entities_and_their_locks_are_named():
    world = World()
    start(world)
    turn(
        world,
        h.EntityOperationCalled(1, "@acc@1", "add", ONE),
        h.EntityLockRequested(2, "s", ("@acc@1", "@acc@2")),
    )
    assert awaited(world) == [
        Awaited(kind="entity", instance_id="@acc@1", task_id=1),
        Awaited(kind="lock", instance_id="@acc@1", task_id=2),
        Awaited(kind="lock", instance_id="@acc@2", task_id=2),
    ]
    assert en.is_entity_id("@acc@1")


def test_the_history_tells_since_when():
    world = World()
    start(world)
    turn(world, h.TimerCreated(1, START + 99 * SECOND))
    world.now += SECOND
    ask(world, r.Raise("go", ONE), 2)
    turn(
        world,
        h.EntityOperationCalled(2, "@acc@1", "add", ONE),
        h.EntityLockRequested(3, "s", ("@acc@1",)),
    )
    world.now += SECOND
    ask(world, r.Suspend("lunch"), 3)
    history = world.node_of("a").whole_history(world.instance("a"))
    explanation = explain(world.node_of("a").core, "a", (), history=history)
    assert explanation is not None
    later = START + SECOND
    assert list(explanation.awaited) == [
        Awaited(kind="resume", reason="lunch", since=later + SECOND),
        Awaited(kind="entity", instance_id="@acc@1", task_id=2, since=later),
        Awaited(kind="lock", instance_id="@acc@1", task_id=3, since=later),
        Awaited(kind="timer", task_id=1, since=START, due=START + 99 * SECOND),
    ]


def test_the_history_is_read_only_for_what_it_tells():
    world = World()
    start(world)
    turn(world, activity(1), child(2, "b"))
    assert not has_more_in_history(world.instance("a"))
    ask(world, r.Suspend("lunch"), 2)
    assert has_more_in_history(world.instance("a"))
    ask(world, r.Terminate(), 3)
    assert not has_more_in_history(world.instance("a"))


def test_a_wide_fan_out_is_counted_rather_than_listed():
    world = World()
    start(world)
    turn(world, *(activity(n) for n in range(AWAITED_MAX + 5)))
    explanation = explain(world.node_of("a").core, "a", ())
    assert explanation is not None
    assert (len(explanation.awaited), explanation.more) == (AWAITED_MAX, 5)
