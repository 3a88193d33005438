"""The laws of the engine under random life: replay, streams, events, requests, recovery.

What is checked after every single thing that happens is in `laws` and `twin`; what may happen
is in `driver`. Long lives come from a seed; short ones from hypothesis, which shrinks them.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.core.driver import WEIGHTS, Driver

STEPS = 300


@pytest.mark.runs(60)
def test_the_laws_hold_through_a_long_life(seed: int):
    driver = Driver(Random(seed), partitions=1 + seed % 3)
    for _ in range(STEPS):
        driver.act()
    driver.finish()


@pytest.mark.runs(20)
def test_the_laws_hold_in_families_that_fail_and_are_rewound(seed: int):
    driver = Driver(Random(seed), partitions=1 + seed % 3, families=True)
    for _ in range(STEPS):
        driver.act()
    driver.finish()


def test_the_same_seed_leads_to_the_same_journal():
    journals = []
    for _ in range(2):
        driver = Driver(Random(7), partitions=3)
        for _ in range(STEPS):
            driver.act()
        journals.append([node.journal for node in driver.world.nodes])
    assert journals[0] == journals[1]


class Life(RuleBasedStateMachine):
    """A short life, told by hypothesis."""

    @initialize(partitions=st.integers(1, 3))
    def begin(self, partitions: int) -> None:
        self.driver = Driver(Random(0), partitions)

    @rule(
        name=st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)]),
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
TestLife.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
