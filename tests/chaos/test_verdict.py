"""The verdict itself is tested: a check that finds nothing must be one that could."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import HistoryEvent
from tests.chaos.auditing import book_faults, tally_faults
from tests.chaos.bank import Count, Move, Tally, Transfer
from tests.chaos.kinds import Sent, wrong_items
from tests.chaos.ledger import PATH_VARIABLE, Ledger, record
from tests.chaos.tallying import TallyLog
from tests.chaos.verdict import effect_faults, end_faults, outcome_faults

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SENT = Sent(acknowledged={0: [0, 2], 1: [0]}, unknown={0: [1]})


def history(*kinds: str, task_id: int = 1, result: Any = None) -> list[HistoryEvent]:
    return [
        HistoryEvent(
            kind=kind,
            event_id=event_id,
            timestamp=EPOCH,
            task_id=task_id if kind.startswith("Task") else None,
            result=result,
        )
        for event_id, kind in enumerate(kinds)
    ]


def items(sender: int, *numbers: int, last: int) -> list[dict[str, Any]]:
    sent = [{"sender": sender, "number": number, "last": False} for number in numbers]
    return [*sent, {"sender": sender, "number": last, "last": True}]


@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 2)], ids=["arrived", "did not arrive"])
def test_an_unknown_event_may_have_arrived_or_not(numbers: tuple[int, ...]) -> None:
    assert not wrong_items([*items(1, 0, last=1), *items(0, *numbers, last=3)], SENT)


@pytest.mark.parametrize(
    "numbers",
    [(0,), (2, 0), (0, 0, 2), (0, 1, 1, 2), (0, 2, 5)],
    ids=["lost", "reordered", "twice", "unknown twice", "never sent"],
)
def test_a_wrong_delivery_is_found(numbers: tuple[int, ...]) -> None:
    assert wrong_items([*items(1, 0, last=1), *items(0, *numbers, last=3)], SENT)


def counted(*numbers: int) -> Count:
    tally = Tally()
    for number in numbers:
        tally.mark(number)
    return tally.look()


TALLY_LOG = TallyLog("t", acknowledged=[0, 1, 3], unknown=[2], answers={0: 1, 3: 3})


@pytest.mark.parametrize("numbers", [(0, 1, 3), (0, 1, 2, 3), (0, 1, 3, 2)])
def test_an_unknown_operation_may_have_been_carried_out_or_not(numbers: tuple[int, ...]) -> None:
    assert not tally_faults(counted(*numbers), TALLY_LOG)


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ((0, 1), "acknowledged and not counted: [3]"),
        ((0, 3), "acknowledged and not counted: [1]"),
        ((0, 3, 1), "counted out of order: [1]"),
        ((0, 1, 1, 3), "counted twice: [1]"),
        ((0, 1, 2, 2, 3), "counted twice: [2]"),
        ((0, 1, 3, 2, 2), "counted twice: [2]"),
        ((0, 1, 3, 4), "counted and never sent: [4]"),
    ],
)
def test_a_wrong_count_is_found(numbers: tuple[int, ...], fault: str) -> None:
    assert tally_faults(counted(*numbers), TALLY_LOG) == [fault]


def test_a_wrong_answer_is_found() -> None:
    log = TallyLog("t", acknowledged=[0, 1], answers={1: 1})
    assert tally_faults(counted(0, 1), log) == ["answered with a wrong count: {1: 1}"]


def test_books_that_balance_are_right() -> None:
    books = {"a": [Move("x", -5), Move("other", 3)], "b": [Move("x", 5)], "c": [Move("other", -3)]}
    assert not book_faults(books, {"x": Transfer("a", "b", 5)})


@pytest.mark.parametrize(
    "books",
    [
        {"a": [Move("x", -5)], "b": []},
        {"a": [Move("x", -5)], "b": [Move("x", 5), Move("x", 5)]},
        {"a": [Move("x", -5), Move("x", -5)], "b": [Move("x", 5), Move("x", 5)]},
        {"a": [Move("x", -4)], "b": [Move("x", 4)]},
        {"a": [], "b": []},
        {"a": [Move("x", -5), Move("y", 1)], "b": [Move("x", 5), Move("z", -1)]},
    ],
    ids=["half", "twice there", "twice", "another amount", "lost", "balanced by chance"],
)
def test_wrong_books_are_found(books: dict[str, list[Move]]) -> None:
    assert book_faults(books, {"x": Transfer("a", "b", 5)})


def test_one_outcome_per_activity_is_right() -> None:
    assert not outcome_faults(history("TaskScheduled", "TaskCompleted"))


@pytest.mark.parametrize(
    "kinds",
    [
        ("TaskScheduled",),
        ("TaskCompleted",),
        ("TaskScheduled", "TaskCompleted", "TaskCompleted"),
        ("TaskScheduled", "TaskFailed", "TaskCompleted"),
        ("TaskScheduled", "TaskScheduled", "TaskCompleted"),
    ],
)
def test_any_other_number_of_outcomes_is_found(kinds: tuple[str, ...]) -> None:
    assert outcome_faults(history(*kinds))


@pytest.mark.parametrize(
    "kinds",
    [
        ("ExecutionStarted",),
        ("ExecutionStarted", "ExecutionCompleted", "TaskCompleted"),
        ("ExecutionStarted", "ExecutionCompleted", "ExecutionCompleted"),
        ("ExecutionStarted", "ExecutionStarted", "ExecutionCompleted"),
    ],
)
def test_an_execution_that_does_not_start_or_end_once_is_found(kinds: tuple[str, ...]) -> None:
    assert end_faults(history(*kinds))


def test_a_result_must_be_that_of_a_run_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    token = record("a", "x", 1, 1)
    record("a", "x", 1, 1)
    ledger = Ledger(path)
    (real,) = history("TaskCompleted", result={"token": token})
    (invented,) = history("TaskCompleted", result={"token": "invented"})
    assert effect_faults(real, "a", ledger) == []
    assert effect_faults(invented, "a", ledger)
    assert effect_faults(real, "b", ledger)
    assert (len(ledger), ledger.repeated()) == (2, 1)
