from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from shardrt.core.effects import RunActivity
from shardrt.host.attempts import Attempt
from shardrt.host.gates import Gate, Lines

if TYPE_CHECKING:
    from shardrt.core.history import Failure


class Nobody:
    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        raise AssertionError("nothing runs here")


class Room:
    """A shard with so much room, in which attempts start but never end by themselves."""

    def __init__(self, room: int, gates: dict[int, tuple[Gate, ...]]) -> None:
        self.lines = Lines()
        self.room = room
        self.gates = gates
        self.started: list[int] = []

    def start(self, attempt: Attempt) -> None:
        gates = self.gates.get(attempt.run.task_id, ())
        for gate in gates:
            if gate.used >= gate.places:
                self.lines.wait(attempt, gate)
                return
        for gate in gates:
            gate.used += 1
        self.started.append(attempt.run.task_id)

    def has_room(self) -> bool:
        return len(self.started) < self.room

    def advance(self) -> list[int]:
        self.lines.let_through(self.has_room, self.start)
        return self.started


def an_attempt(task_id: int) -> Attempt:
    return Attempt(Nobody(), RunActivity("i", "x", task_id, 1, "act", Raw(b"null")))


def test_who_came_first_is_served_first():
    room = Room(2, {})
    for task_id in (3, 1, 2):
        room.lines.wait(an_attempt(task_id))
    assert room.advance() == [3, 1]
    assert len(room.lines.waiting) == 1


def test_who_moves_on_to_another_gate_lets_the_next_one_through():
    first, second = Gate(1), Gate(1)
    first.used = second.used = 1
    room = Room(9, {1: (first, second), 2: (first,)})
    for task_id in (1, 2):
        room.lines.wait(an_attempt(task_id), first)
    room.lines.give_back([first])
    assert room.advance() == [2]
    room.lines.give_back([first, second])
    assert room.advance() == [2, 1]


def test_a_place_given_back_while_the_shard_is_full_is_not_forgotten():
    gate = Gate(1)
    gate.used = 1
    room = Room(0, {1: (gate,)})
    room.lines.wait(an_attempt(1), gate)
    room.lines.give_back([gate])
    assert room.advance() == []
    room.room = 1
    assert room.advance() == [1]


def test_who_is_forgotten_is_passed_over():
    room = Room(9, {})
    one, other = an_attempt(1), an_attempt(2)
    room.lines.wait(one)
    room.lines.wait(other)
    room.lines.forget(("i", "x", 1))
    assert room.advance() == [2]
    assert len(room.lines.waiting) == 0


def test_what_a_partition_asked_for_is_forgotten_together():
    room = Room(9, {})
    mine, theirs = an_attempt(1), an_attempt(2)
    room.lines.wait(mine)
    room.lines.wait(theirs)
    room.lines.forget_all(mine.asker)
    assert room.advance() == [2]
