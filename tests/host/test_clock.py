"""Hub time: the database's, as well as a process can know it."""

from __future__ import annotations

import pytest

from shardrt.host.clock import HubClock

HOUR_US = 3600 * 1_000_000


@pytest.mark.parametrize("ahead", [-HOUR_US, HOUR_US])
def test_a_wrong_wall_clock_is_forgotten_once_the_database_is_heard(ahead: int):
    clock = HubClock()
    true = clock.offset - ahead
    guess = clock.now()
    clock.correct(true)
    assert abs(clock.now() - (guess - ahead)) < 60 * 1_000_000


def test_later_corrections_do_not_turn_time_back():
    clock = HubClock()
    clock.observe(1_000_000_000)
    before = clock.now()
    clock.observe(999_000_000)
    assert clock.now() == before
