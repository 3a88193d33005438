"""Limits under random life: never more than allowed, nothing leaks, everybody gets a turn."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.core.limit_driver import LIMIT_WEIGHTS, LimitDriver

STEPS = 400


@pytest.mark.runs(60)
def test_limits_hold_through_a_long_life(seed: int):
    driver = LimitDriver(Random(seed), partitions=1 + seed % 3)
    for _ in range(STEPS):
        driver.act()
    driver.finish()


class Life(RuleBasedStateMachine):
    """A short life, told by hypothesis."""

    @initialize(partitions=st.integers(1, 3), random=st.randoms(use_true_random=False))
    def begin(self, partitions: int, random: Random) -> None:
        self.driver = LimitDriver(random, partitions)

    @rule(
        name=st.sampled_from(
            [name for name, weight in LIMIT_WEIGHTS.items() for _ in range(weight)]
        ),
        random=st.randoms(use_true_random=False),
    )
    def act(self, name: str, random: Random) -> None:
        self.driver.random = random
        self.driver.act_as(name)

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.random = Random(0)
            self.driver.finish()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=80, deadline=None)
