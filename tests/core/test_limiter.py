"""A limiter by itself: who gets a slot, in which order, and when."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from shardrt.core.entity import is_entity_id
from shardrt.core.limiter import (
    LINGER,
    Limiter,
    Numbers,
    SlotHolder,
    holder_of,
    is_limiter_id,
    limit_and_key,
    limiter_id,
    slot_of,
)

TWO = Numbers(concurrency=2)


def wanted(numbers: Numbers, *slots: str, at: int = 0) -> Limiter:
    limiter = Limiter()
    for slot in slots:
        limiter.want(slot, numbers, 0, at)
    return limiter


def test_who_comes_first_is_served_first():
    limiter = wanted(TWO, "a", "b", "c", "d")
    assert limiter.advance(5) == ["a", "b"]
    limiter.give_back("b")
    assert limiter.advance(6) == ["c"]
    assert (list(limiter.holders), list(limiter.waiting)) == (["a", "c"], ["d"])
    assert limiter.due is None


def test_who_has_left_the_line_is_not_served():
    limiter = wanted(TWO, "a", "b", "c", "d")
    limiter.advance(5)
    limiter.give_back("c")
    assert limiter.advance(6) == []
    limiter.give_back("a")
    assert limiter.advance(7) == ["d"]


def test_a_window_has_room_again_when_its_first_grant_is_as_old_as_it_is_long():
    limiter = wanted(Numbers(rate=2, per=10), "a", "b", "c", "d")
    assert limiter.advance(100) == ["a", "b"]
    assert limiter.due == 110
    assert limiter.advance(109) == []
    assert limiter.advance(110) == ["c", "d"]


def test_a_return_does_not_give_room_in_a_window():
    limiter = wanted(Numbers(rate=1, per=10), "a", "b")
    limiter.advance(100)
    limiter.give_back("a")
    assert limiter.advance(101) == []
    assert limiter.due == 110


def test_both_numbers_must_allow_it():
    limiter = wanted(Numbers(concurrency=1, rate=2, per=10), "a", "b", "c")
    assert limiter.advance(100) == ["a"]
    assert limiter.due is None  # only a return helps
    limiter.give_back("a")
    assert limiter.advance(101) == ["b"]
    limiter.give_back("b")
    assert limiter.advance(102) == []
    assert limiter.due == 110


def test_numbers_of_the_newest_call_count_and_nothing_is_revoked():
    limiter = wanted(Numbers(concurrency=3), "a", "b", "c")
    limiter.advance(1)
    limiter.want("d", Numbers(concurrency=1), 5, 2)
    assert limiter.advance(2) == []
    limiter.give_back("a")
    limiter.give_back("b")
    assert limiter.advance(3) == []
    limiter.want("e", Numbers(concurrency=9), 4, 4)  # called before, and tried again now
    assert limiter.advance(4) == []
    limiter.give_back("c")
    assert limiter.advance(5) == ["d"]


def test_a_lower_rate_counts_what_was_granted_before():
    limiter = wanted(Numbers(rate=3, per=10), "a", "b", "c")
    limiter.advance(100)
    limiter.want("d", Numbers(rate=1, per=10), 1, 104)
    assert limiter.advance(104) == []
    assert limiter.due == 110


def test_what_is_asked_twice_is_done_once():
    limiter = wanted(Numbers(concurrency=1), "a", "a", "b")
    assert limiter.advance(1) == ["a"]
    limiter.want("a", Numbers(concurrency=1), 0, 2)
    limiter.give_back("a")
    limiter.give_back("a")
    assert limiter.advance(3) == ["b"]
    assert limiter.waiting == {}


@pytest.mark.parametrize(("per", "due"), [(10, 7 + LINGER), (2 * LINGER, 5 + 2 * LINGER)])
def test_an_unused_limiter_is_kept_for_a_while_and_as_long_as_its_window(per: int, due: int):
    limiter = wanted(Numbers(rate=1, per=per), "a")
    limiter.advance(5)
    limiter.give_back("a")
    limiter.advance(7)
    assert limiter.is_unused
    assert limiter.due == due


@given(st.text(min_size=1), st.text(alphabet="0123456789abcdef"), st.integers(0), st.integers(1))
def test_a_slot_says_whose_it_is(instance_id: str, execution_id: str, task_id: int, attempt: int):
    ids = (instance_id, execution_id, task_id, attempt)
    assert holder_of(slot_of(*ids)) == SlotHolder(*ids)


@given(st.text(min_size=1).filter(lambda name: "/" not in name), st.none() | st.text())
def test_a_limiter_says_of_which_limit_and_key_it_is(name: str, key: str | None):
    limiter = limiter_id(name, key)
    assert limit_and_key(limiter) == (name, key)
    assert is_limiter_id(limiter)
    assert is_entity_id(limiter)


def test_an_entity_is_no_limiter():
    assert not is_limiter_id("@limit@api")
