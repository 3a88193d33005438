"""How attempts wait for slots: what each way for an activity to end means for those behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardrt.core import history as h, requests as r
from shardrt.core.explaining import explain
from shardrt.core.limiter import LINGER, Numbers, limiter_id, slot_of
from shardrt.core.work import Completed, Continued, Failed, Outcome
from tests.core import limit_laws
from tests.core.acts import BROKEN, ONE, SECOND, activity, ask, run_of, start, turn
from tests.core.world import START, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from shardrt.core.limiter import Limiter

API = limiter_id("api")
ONE_AT_A_TIME = Numbers(1)
RETRY = h.Retry(max_attempts=2, first_interval=SECOND)


def limited(
    task_id: int, retry: h.Retry | None = None, numbers: Numbers = ONE_AT_A_TIME
) -> h.TaskScheduled:
    return activity(task_id, retry, limit=h.Quota(limiter=API, numbers=numbers))


def settle(world: World) -> None:
    """Let all messages arrive."""
    world.commit_all()
    world.exchange()
    limit_laws.check_settled(world)


def limiter(world: World) -> Limiter:
    found = world.entity(API).limiter
    assert found is not None
    return found


def running(world: World) -> list[tuple[str, int, int]]:
    return [(each.instance_id, each.task_id, each.attempt) for each in world.running]


def in_line(*names: str, retry: h.Retry | None = None) -> World:
    """Return a world in which the first one has the only slot, and the others wait for it."""
    world = World(2)
    for seq, name in enumerate(names, 1):
        start(world, name, seq)
        turn(world, limited(seq, retry), instance_id=name)
        settle(world)
    assert running(world) == [(names[0], 1, 1)]
    return world


def end(outcome: Outcome) -> Callable[[World, str], object]:
    def act(world: World, name: str) -> object:
        ask(world, r.Raise("go"), 50, name)
        return turn(world, instance_id=name, outcome=outcome)

    return act


def cancel(world: World, name: str) -> None:
    ask(world, r.Raise("go"), 50, name)
    turn(world, h.TaskCanceled(task_of(name)), instance_id=name)


def task_of(name: str) -> int:
    """Return the task id of the activity of ``a``, ``b`` or ``c``."""
    return "_abc".index(name)


ENDS: dict[str, Callable[[World, str], object]] = {
    "canceled": cancel,
    "terminated": lambda world, name: ask(world, r.Terminate(), 50, name),
    "instance completed": end(Completed(ONE)),
    "instance failed": end(Failed(BROKEN)),
    "continued as new": end(Continued(ONE)),
}
OUTCOMES: dict[str, Raw | h.Failure] = {"completed": ONE, "failed": BROKEN}


@pytest.mark.parametrize("way", [*ENDS, *OUTCOMES])
def test_however_an_activity_ends_the_next_one_gets_its_slot(way: str):
    world = in_line("a", "b")
    if way in OUTCOMES:
        world.activity_ended(run_of(world, 1), OUTCOMES[way])
    else:
        ENDS[way](world, "a")
    settle(world)
    assert ("b", 2, 1) in running(world)
    assert len(limiter(world).holders) == 1


@pytest.mark.parametrize("way", ENDS)
def test_who_ends_while_waiting_leaves_the_line(way: str):
    world = in_line("a", "b", "c")
    ENDS[way](world, "b")
    settle(world)
    world.activity_ended(run_of(world, 1), ONE)
    settle(world)
    assert running(world) == [("c", 3, 1)]


def test_between_two_attempts_others_have_the_slot():
    world = in_line("a", "b", retry=RETRY)
    world.activity_ended(run_of(world, 1), BROKEN)
    settle(world)
    assert running(world) == [("b", 2, 1)]
    world.now += SECOND
    for node in world.nodes:
        world.fire(node)
    settle(world)
    assert running(world) == [("b", 2, 1)]  # a is due, and waits behind b
    world.activity_ended(run_of(world, 2), ONE)
    settle(world)
    assert running(world) == [("a", 1, 2)]


def test_the_time_for_all_attempts_may_end_in_line():
    world = in_line("a", "b", retry=h.Retry(max_attempts=1, first_interval=0, total=SECOND))
    world.now += SECOND
    for node in world.nodes:
        world.fire(node)
    settle(world)
    (failed,) = world.instance("b").inbox
    assert isinstance(failed, h.TaskFailed)
    assert failed.failure.type == "TimeoutError"
    assert limiter(world).is_unused


def test_a_rewound_activity_waits_for_a_slot_again():
    world = in_line("a")
    world.activity_ended(run_of(world, 1), BROKEN)
    turn(world, outcome=Failed(BROKEN))
    settle(world)
    ask(world, r.Rewind(), 50)
    world.commit_all()
    assert running(world) == []
    settle(world)
    assert running(world) == [("a", 1, 1)]


def test_a_grant_for_who_has_left_is_dropped_and_its_slot_goes_on():
    world = World(2)
    start(world)
    turn(world, limited(1))
    (frame,) = world.frames  # the want; the grant comes back as the next frame
    world.frames.clear()
    world.deliver(frame)
    world.commit_all()
    ask(world, r.Terminate(), 2)
    settle(world)
    assert running(world) == []
    assert limiter(world).is_unused


def test_a_new_owner_runs_who_has_a_slot_and_nobody_else():
    world = in_line("a", "b")
    for node in world.nodes:
        for effect in world.crash(node):
            assert getattr(effect, "instance_id", "a") == "a"
    settle(world)
    assert running(world) == [("a", 1, 1)]


def test_who_waits_can_leave_memory_and_is_loaded_for_its_grant():
    world = in_line("a", "b")
    for node in world.nodes:
        node.write_rows()
        for each in [*node.core.instances, *node.core.entities]:
            node.evict(each)
    held = {each for node in world.nodes for each in node.core.instances}
    assert held == {"a"}
    world.activity_ended(run_of(world, 1), ONE)
    settle(world)
    assert running(world) == [("b", 2, 1)]


def test_a_window_with_no_room_is_waited_for():
    world = World(2)
    start(world)
    numbers = Numbers(rate=2, per=10 * SECOND)
    turn(world, *(limited(n, numbers=numbers) for n in range(3)))
    settle(world)
    assert [task_id for _, task_id, _ in running(world)] == [0, 1]
    for node in world.nodes:
        node.write_rows()
    assert world.node_of(API).evict(API)
    world.now += 10 * SECOND
    for node in world.nodes:
        world.fire(node)
    settle(world)
    assert [task_id for _, task_id, _ in running(world)] == [0, 1, 2]


def test_an_unused_limiter_is_forgotten_and_comes_back_when_it_is_wanted():
    world = in_line("a")
    world.activity_ended(run_of(world, 1), ONE)
    settle(world)
    world.now += LINGER
    node = world.node_of(API)
    world.fire(node)
    world.commit(node)
    assert API not in node.entities()
    turn(world, limited(2))
    settle(world)
    assert running(world) == [("a", 2, 1)]
    assert limiter(world).holders == {
        slot_of("a", world.instance("a").execution_id, 2, 1): world.now
    }


def test_a_limiter_can_be_told_to_forget_who_has_slots():
    world = in_line("a", "b", "c")
    assert ask(world, r.Purge(), 50, API) == r.Refusal(
        "InstanceNotFinished", "entity '@$limit@api' has a state, is locked, or has work to do"
    )
    assert ask(world, r.Purge(force=True), 51, API) == r.Purged(1)
    world.commit_all()
    world.exchange()
    assert running(world) == [("a", 1, 1), ("b", 2, 1)]
    world.activity_ended(run_of(world, 1), ONE)  # it has no slot to give back any more
    settle(world)
    assert running(world) == [("b", 2, 1)]


def test_who_waited_for_a_limiter_that_was_lost_asks_again_when_it_is_resumed():
    world = in_line("a", "b")
    node = world.node_of(API)
    node.core.quarantined[API] = node.core.snapshot(world.instance("a"))
    assert ask(world, r.Purge(force=True), 50, API) == r.Purged(1)
    world.activity_ended(run_of(world, 1), ONE)
    world.commit_all()
    world.exchange()
    assert running(world) == []
    ask(world, r.Suspend(), 51, "b")
    ask(world, r.Resume(), 52, "b")
    settle(world)
    assert running(world) == [("b", 2, 1)]


def test_who_is_suspended_keeps_its_place_in_line():
    world = in_line("a", "b", "c")
    ask(world, r.Suspend(), 51, "b")
    ask(world, r.Resume(), 52, "b")
    settle(world)
    world.activity_ended(run_of(world, 1), ONE)
    settle(world)
    assert running(world) == [("b", 2, 1)]


# -- how it looks from outside -----------------------------------------------------------------


def test_it_is_told_who_waits_for_a_slot_and_how_the_line_stands():
    world = in_line("a", "b", "c")
    explanation = explain(world.node_of("c").core, "c", ())
    assert explanation is not None
    assert explanation.awaited == (
        r.Awaited(kind="slot", instance_id=API, name="act", task_id=3, attempt=1, since=START),
    )
    snapshots = {}
    for name in "abc":
        slot = slot_of(name, world.instance(name).execution_id, task_of(name), 1)
        snapshots[name] = ask(world, r.GetSlot(slot), 0, API)
    assert snapshots == {
        name: r.SlotSnapshot(position=n, waiting=2, holders=1, numbers=ONE_AT_A_TIME)
        for n, name in enumerate("abc")
    }
    assert ask(world, r.GetSlot("of nobody"), 0, API) is None
    assert ask(world, r.GetSlot("of nobody"), 0, limiter_id("unknown")) is None
