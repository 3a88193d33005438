"""The simulation finds bugs: each that is planted breaks a promise within so many seeds."""

from __future__ import annotations

import pytest

from shardrt.store.memory import MemoryStore
from shardrt.testing.sim.run import simulate
from tests.sim.bugs import ALL
from tests.sim.patching import planted
from tests.sim.planted import find, find_all

ENOUGH = 600
"""Seeds for the rarest: with each change of the product a bug shows in others."""
QUICK = (
    "ack before commit",
    "activity before commit",
    "claim without a new epoch",
    "partial batch acknowledged",
    "unknown commit assumed done",
    "late result into a new execution",
)
"""Those that hardly any seed misses."""


@pytest.mark.parametrize("name", QUICK)
def test_a_gross_bug_is_found_at_once(name: str):
    assert find(name, range(20)).seed is not None


@pytest.mark.sim
@pytest.mark.timeout(3600)
def test_every_planted_bug_is_found():
    assert len(ALL) >= 15
    missed = [found.bug for found in find_all(list(ALL), ENOUGH) if found.seed is None]
    assert missed == []


def test_a_planted_bug_is_gone_afterwards():
    append = MemoryStore.append
    with planted("no epoch check on append"):
        assert MemoryStore.append is not append
    assert MemoryStore.append is append
    assert simulate(3).is_good
