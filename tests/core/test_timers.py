"""The index of all timers of a partition."""

from __future__ import annotations

from shardrt.core.timers import Timers


def filled(*items: tuple[int, str, int]) -> Timers:
    timers = Timers()
    for item in items:
        timers.add(*item)
    return timers


def test_the_earliest_comes_first():
    timers = filled((30, "a", 1), (10, "b", 2), (20, "a", 3))
    assert timers.next_due() == 10
    assert [timers.pop(100) for _ in range(4)] == [(10, "b", 2), (20, "a", 3), (30, "a", 1), None]


def test_nothing_comes_before_it_is_due():
    timers = filled((30, "a", 1))
    assert timers.pop(29) is None
    assert timers.pop(30) == (30, "a", 1)


def test_an_empty_index_is_never_due():
    assert Timers().next_due() is None
    assert len(Timers()) == 0


def test_what_is_not_confirmed_is_dropped_once_there_is_much_of_it():
    timers = filled(*[(n, "a", n) for n in range(2000)])
    timers.compact(lambda item: item[2] % 2 == 0)
    assert len(timers) == 1000
    assert timers.next_due() == 0


def test_a_small_index_is_left_alone():
    timers = filled((1, "a", 1))
    timers.compact(lambda item: False)
    assert len(timers) == 1


def test_it_is_looked_through_again_only_when_it_has_doubled():
    timers = filled(*[(n, "a", n) for n in range(1500)])
    timers.compact(lambda item: True)
    timers.compact(lambda item: False)
    assert len(timers) == 1500
    for n in range(1500):
        timers.add(n, "b", n)
    timers.compact(lambda item: False)
    assert len(timers) == 0


def test_the_same_item_over_and_over_is_kept_once():
    timers = filled(*[(5, "a", 1)] * 5000)
    timers.compact(lambda item: True)
    assert len(timers) == 1
