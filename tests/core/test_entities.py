"""Entities: operations in order, locks, signals for later, and what clients are answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from shardrt.core import entity as en, history as h, messages as m, requests as r
from shardrt.core.work import Completed, Continued, Failed, Outcome
from tests.core import laws
from tests.core.acts import ONE, SECOND, THREE, TWO, arrivals, ask, origin, start, turn
from tests.core.world import START, World

if TYPE_CHECKING:
    from msgspec import Raw

ACC, BEE = "@acc@1", "@acc@2"


@dataclass
class Story:
    """A world, and what its entities have done: each operation returns its own input."""

    world: World = field(default_factory=World)
    done: list[tuple[str, bytes]] = field(default_factory=list)

    def work(self, **answers: en.State) -> None:
        """Let all entities do what they can, and messages arrive, until nothing moves."""
        world = self.world
        moved = True
        while moved:
            world.commit_all()
            world.exchange()
            moved = False
            for node in world.nodes:
                while (item := world.next_entity_work(node)) is not None:
                    moved = True
                    assert world.step_entity(self.step_of(item))

    def step_of(self, item: en.EntityWork, state: en.State | None = (ONE,)) -> en.EntityStep:
        self.world.entity_work.remove(item)
        self.done += [(each.name, bytes(each.input)) for each in item.operations]
        results = tuple(en.OperationResult(each.input) for each in item.operations)
        return en.EntityStep(item.instance_id, item.token, results, state)

    def hold(self, *entities: str, instance_id: str = "a", seq: int = 1) -> str:
        """Let an instance ask for a lock; return the name of its section."""
        start(self.world, instance_id, seq)
        name = f"section of {instance_id}"
        turn(self.world, h.EntityLockRequested(1, name, entities), instance_id=instance_id)
        return name

    def lock_of(self, entity_id: str) -> str | None:
        entity = self.world.entity(entity_id)
        return None if entity.lock is None else entity.lock.section

    def signal(self, entity_id: str, data: Raw, seq: int) -> None:
        assert ask(self.world, r.SignalEntity("add", data), seq, entity_id) == r.Done()


# -- operations ----------------------------------------------------------------------------------


def test_an_entity_comes_to_be_when_something_is_asked_of_it():
    story = Story()
    assert ask(story.world, r.GetEntity(), 1, ACC) is None
    story.signal(ACC, TWO, 1)
    story.work()
    snapshot = ask(story.world, r.GetEntity(), 2, ACC)
    assert isinstance(snapshot, r.EntitySnapshot)
    assert (snapshot.name, snapshot.key, snapshot.state) == ("acc", "1", ONE)
    assert story.done == [("add", b"2")]


def test_a_call_of_an_instance_is_answered():
    story = Story()
    start(story.world)
    turn(story.world, h.EntityOperationCalled(1, ACC, "add", THREE))
    story.work()
    assert arrivals(story.world) == (h.EntityOperationCompleted(1, START, THREE),)


def test_the_answer_to_a_caller_that_started_over_is_dropped():
    story = Story()
    start(story.world)
    turn(story.world, h.EntityOperationCalled(1, ACC, "add", THREE), outcome=Continued(ONE))
    story.work()
    assert arrivals(story.world) == ()
    assert story.done == [("add", b"3")]


def test_an_answer_reaches_the_execution_that_asked_and_no_other():
    story = Story()
    start(story.world)
    turn(story.world, h.EntityOperationCalled(1, ACC, "add", TWO), outcome=Continued(ONE))
    turn(story.world, h.EntityOperationCalled(1, ACC, "add", THREE))
    story.work()
    assert story.done == [("add", b"2"), ("add", b"3")]
    assert arrivals(story.world) == (h.EntityOperationCompleted(1, START, THREE),)


def test_a_grant_reaches_the_execution_that_asked_and_no_other():
    story = Story()
    start(story.world)
    turn(story.world, h.EntityLockRequested(1, "one", (ACC,)), outcome=Continued(ONE))
    turn(story.world, h.EntityLockRequested(1, "two", (ACC,)))
    story.work()
    assert arrivals(story.world) == (h.EntityLockGranted(1, START),)
    assert story.lock_of(ACC) == "two"


def test_an_answer_that_was_given_up_is_dropped():
    story = Story()
    start(story.world)
    turn(story.world, h.EntityOperationCalled(1, ACC, "add", THREE), h.TaskCanceled(1))
    story.work()
    assert arrivals(story.world) == ()


def test_operations_are_handed_out_in_bounded_batches():
    story = Story()
    for seq in range(1, en.OPERATIONS_MAX + 2):
        story.signal(ACC, ONE, seq)
    node = story.world.nodes[0]
    item = story.world.next_entity_work(node)
    assert item is not None
    assert len(item.operations) == en.OPERATIONS_MAX
    assert story.world.step_entity(story.step_of(item))
    following = story.world.next_entity_work(node)
    assert following is not None
    assert len(following.operations) == 1


def test_a_step_that_did_a_part_is_followed_by_one_for_the_rest():
    story = Story()
    story.signal(ACC, ONE, 1)
    story.signal(ACC, TWO, 2)
    item = story.world.next_entity_work(story.world.nodes[0])
    assert item is not None
    story.world.entity_work.clear()
    step = en.EntityStep(ACC, item.token, (en.OperationResult(),), ())
    assert story.world.step_entity(step)
    story.work()
    assert story.done == [("add", b"2")]


def test_outputs_travel_as_messages():
    story = Story()
    story.signal(ACC, ONE, 1)
    item = story.world.next_entity_work(story.world.nodes[0])
    assert item is not None
    outputs = (en.SignalSent(BEE, "add", TWO), en.OrchestrationStarted("new", "code", THREE))
    step = en.EntityStep(ACC, item.token, (en.OperationResult(),), None, outputs)
    story.world.entity_work.clear()
    assert story.world.step_entity(step)
    story.work()
    assert story.done == [("add", b"2")]
    assert story.world.instance("new").input == THREE
    assert story.world.entity(ACC).state == ()


def test_a_start_by_an_entity_leaves_an_open_instance_alone():
    story = Story()
    start(story.world, "new")
    before = story.world.instance("new").execution_id
    story.signal(ACC, ONE, 2)
    item = story.world.next_entity_work(story.world.nodes[0])
    assert item is not None
    outputs = (en.OrchestrationStarted("new", "code"), en.OrchestrationStarted(BEE, "code"))
    story.world.step_entity(en.EntityStep(ACC, item.token, (en.OperationResult(),), None, outputs))
    story.work()
    assert story.world.instance("new").execution_id == before
    assert BEE not in story.world.nodes[0].instances()


def test_an_entity_without_code_keeps_its_work_and_says_why():
    story = Story()
    story.signal(ACC, ONE, 1)
    node = story.world.nodes[0]
    for _ in range(2):
        item = story.world.next_entity_work(node)
        assert item is not None
        assert story.world.step_entity(en.EntityStep(ACC, item.token, parked="no code"))
        assert story.world.next_entity_work(node) is None
        story.signal(ACC, TWO, 2)
    snapshot = ask(story.world, r.GetEntity(), 3, ACC)
    assert isinstance(snapshot, r.EntitySnapshot)
    assert (snapshot.reason, snapshot.backlog) == ("no code", 2)
    story.world.entity_work.clear()
    story.world.crash(node)
    story.work()
    assert story.done == [("add", b"1"), ("add", b"2")]
    assert story.world.entity(ACC).parked == ""


def test_what_is_no_entity_cannot_be_asked_for_anything():
    story = Story()
    start(story.world)
    turn(
        story.world,
        h.EntityOperationCalled(1, "b", "add", ONE),
        h.EntityOperationSignaled(2, "b", "add", ONE),
        h.EntityLockRequested(3, "s", ("b",)),
        outcome=None,
    )
    story.work()
    (failed,) = arrivals(story.world)
    assert isinstance(failed, h.EntityOperationFailed)
    assert failed.failure.type == "InputInvalid"
    assert story.world.nodes[0].entities() == {}


def test_an_instance_cannot_have_the_id_of_an_entity():
    world = World()
    answer = start(world, ACC)
    assert isinstance(answer, r.Refusal)
    assert answer.code == "InputInvalid"
    start(world)
    turn(world, h.SubOrchestrationInstanceCreated(1, ACC, "kid", ONE))
    world.exchange()
    (failed,) = arrivals(world)
    assert isinstance(failed, h.SubOrchestrationInstanceFailed)


# -- for later ------------------------------------------------------------------------------------


def test_a_signal_for_later_is_never_early_and_survives_everything():
    story = Story()
    world, node = story.world, story.world.nodes[0]
    later = START + 10 * SECOND
    ask(world, r.SignalEntity("add", TWO, later), 1, ACC)
    node.write_rows()
    assert node.evict(ACC)
    world.crash(node)
    world.now = later - 1
    world.fire(node)
    story.work()
    assert story.done == []
    world.now = later
    world.fire(node)
    story.work()
    assert story.done == [("add", b"2")]


def test_a_time_that_is_over_means_now():
    story = Story()
    ask(story.world, r.SignalEntity("add", TWO, START - 1), 1, ACC)
    story.work()
    assert story.done == [("add", b"2")]


def test_an_entity_can_be_signalled_for_later_by_an_instance():
    story = Story()
    start(story.world)
    later = START + SECOND
    turn(story.world, h.EntityOperationSignaled(1, ACC, "add", TWO, later))
    story.work()
    story.world.now = later
    story.world.fire(story.world.nodes[0])
    story.work()
    assert story.done == [("add", b"2")]


# -- clients --------------------------------------------------------------------------------------


def call(world: World, seq: int, data: Raw = ONE, to: str = "x", low: int = 0) -> object:
    return world.request(ACC, r.CallEntity("add", data), origin(seq, low=low), to)


def test_a_client_is_answered_once_it_is_done_and_again_if_it_asks_again():
    story = Story()
    assert call(story.world, 1) is None
    assert call(story.world, 1, to="y") is None
    story.work()
    assert story.world.answers["x"] == [r.EntityReply(ONE)]
    assert story.world.answers["y"] == [r.EntityReply(ONE)]
    story.world.crash(story.world.nodes[0])
    assert call(story.world, 1, to="z") == r.EntityReply(ONE)
    assert len(story.done) == 1


def test_a_client_that_asks_too_late_hears_that_the_answer_is_forgotten():
    story = Story()
    for seq in range(1, en.ANSWERS_MAX + 2):
        call(story.world, seq)
        story.work()
    answer = call(story.world, 1, to="again")
    assert isinstance(answer, r.Refusal)
    assert answer.code == "AnswerForgotten"


def test_answers_that_nobody_can_ask_for_any_more_are_dropped():
    story = Story()
    call(story.world, 1, low=1)
    story.work()
    call(story.world, 2, low=2)
    story.work()
    assert [each.seq for each in story.world.entity(ACC).answers] == [2]


def test_a_repeated_signal_is_done_once():
    story = Story()
    story.signal(ACC, TWO, 1)
    story.signal(ACC, TWO, 1)
    story.work()
    assert story.done == [("add", b"2")]


def test_only_an_empty_entity_can_be_purged():
    story = Story()
    story.signal(ACC, TWO, 1)
    refused = ask(story.world, r.Purge(), 2, ACC)
    assert isinstance(refused, r.Refusal)
    assert refused.code == "InstanceNotFinished"
    item = story.world.next_entity_work(story.world.nodes[0])
    assert item is not None
    assert story.world.step_entity(story.step_of(item, state=()))
    assert ask(story.world, r.Purge(), 3, ACC) == r.Purged(1)
    assert ask(story.world, r.Purge(), 3, ACC) == r.Purged(1)
    assert ask(story.world, r.Purge(), 4, ACC) == r.Purged(0)
    story.world.nodes[0].write_rows()
    assert story.world.nodes[0].entities() == {}
    story.signal(ACC, THREE, 5)
    story.work()
    assert story.world.entity(ACC).state == (ONE,)
    laws.check_replay(story.world.nodes[0])


# -- locks ----------------------------------------------------------------------------------------


def granted(world: World, instance_id: str = "a") -> bool:
    return any(isinstance(each, h.EntityLockGranted) for each in arrivals(world, instance_id))


def test_a_section_gets_all_its_entities_and_others_wait():
    story = Story()
    section = story.hold(ACC, BEE)
    story.work()
    assert granted(story.world)
    assert (story.lock_of(ACC), story.lock_of(BEE)) == (section, section)
    story.signal(ACC, TWO, 2)
    story.work()
    assert story.done == []
    turn(story.world, h.EntityOperationCalled(2, ACC, "add", THREE, section))
    story.work()
    assert story.done == [("add", b"3")]
    unlocks = (h.EntityUnlockSent(3, section, ACC), h.EntityUnlockSent(4, section, BEE))
    turn(story.world, *unlocks)
    story.work()
    assert story.done == [("add", b"3"), ("add", b"2")]
    assert (story.lock_of(ACC), story.lock_of(BEE)) == (None, None)
    assert story.world.instance("a").locks == {}


def test_what_is_asked_for_before_the_release_is_done_before_it():
    story = Story()
    section = story.hold(ACC)
    story.work()
    story.signal(ACC, TWO, 2)
    call_and_go = (
        h.EntityOperationCalled(2, ACC, "add", THREE, section),
        h.EntityUnlockSent(3, section, ACC),
    )
    turn(story.world, *call_and_go)
    story.work()
    assert story.done == [("add", b"3"), ("add", b"2")]


def test_operations_that_came_before_the_lock_are_done_before_it():
    story = Story()
    story.signal(ACC, ONE, 9)
    story.hold(ACC)
    story.world.exchange()
    assert story.lock_of(ACC) is None
    story.work()
    assert story.done == [("add", b"1")]
    assert granted(story.world)


def test_sections_wait_for_each_other_in_order():
    story = Story()
    first = story.hold(ACC, BEE)
    story.work()
    turn(story.world)
    second = story.hold(BEE, instance_id="b", seq=2)
    story.work()
    assert not granted(story.world, "b")
    ask(story.world, r.Terminate(), 3)
    story.work()
    assert granted(story.world, "b")
    assert (story.lock_of(ACC), story.lock_of(BEE)) == (None, second)
    assert first != second


ENDS: list[Outcome] = [
    Completed(),
    Failed(h.Failure(type="E")),
    Continued(ONE),
]


@pytest.mark.parametrize("end", ENDS)
def test_however_the_code_ends_its_entities_are_free(end: Outcome):
    story = Story()
    story.hold(ACC, BEE)
    story.work()
    turn(story.world, outcome=end)
    story.work()
    assert (story.lock_of(ACC), story.lock_of(BEE)) == (None, None)


@pytest.mark.parametrize("rounds", range(6))
def test_a_holder_that_ends_while_the_lock_is_on_its_way_leaves_nothing_behind(rounds: int):
    story = Story(World(3))
    entities = ("@acc@a!1", "@acc@b!2", "@acc@c!0")
    story.hold(*entities)
    for _ in range(rounds):
        story.world.commit_all()
        frames, story.world.frames = story.world.frames, []
        for frame in frames:
            story.world.deliver(frame)
    story.world.commit_all()
    ask(story.world, r.Terminate(), 2)
    story.work()
    for entity_id in entities:
        story.signal(entity_id, ONE, 3 + entities.index(entity_id))
        assert story.lock_of(entity_id) is None
    story.work()
    assert len(story.done) == 3


def test_a_request_that_waits_is_taken_out_of_the_queue():
    story = Story()
    first = story.hold(ACC)
    story.work()
    turn(story.world)
    story.hold(ACC, BEE, instance_id="b", seq=2)
    story.work()
    ask(story.world, r.Terminate(), 3, "b")
    story.work()
    assert story.lock_of(ACC) == first
    assert story.world.entity(ACC).inbox == []
    assert BEE not in story.world.nodes[0].entities()


def test_a_lock_can_be_given_up():
    story = Story()
    story.hold(ACC)
    start(story.world, "b", 2)
    wish = h.EntityLockRequested(1, "other", (ACC,))
    turn(story.world, wish, h.TaskCanceled(1), instance_id="b")
    story.work()
    assert granted(story.world)
    assert not granted(story.world, "b")
    ask(story.world, r.Terminate(), 3)
    story.work()
    assert story.lock_of(ACC) is None


def test_a_call_that_claims_a_section_it_is_not_in_fails():
    story = Story()
    start(story.world)
    turn(story.world, h.EntityOperationCalled(1, ACC, "add", ONE, "no such"))
    story.work()
    (failed,) = arrivals(story.world)
    assert isinstance(failed, h.EntityOperationFailed)
    assert failed.failure.type == "LockViolation"
    assert story.done == []


def test_a_lock_that_comes_while_operations_are_out_waits_for_them():
    story = Story()
    story.signal(ACC, ONE, 9)
    item = story.world.next_entity_work(story.world.nodes[0])
    assert item is not None
    story.hold(ACC)
    story.world.exchange()
    assert story.lock_of(ACC) is None
    assert story.world.step_entity(story.step_of(item))
    story.work()
    assert granted(story.world)


def test_messages_of_a_section_are_sent_as_written():
    story = Story()
    section = story.hold(ACC, BEE)
    (frame,) = story.world.frames
    holder = h.Parent("a", story.world.instance("a").execution_id, 1)
    assert frame.messages == (m.LockEntity(ACC, section, holder, (ACC, BEE)),)
