"""What the death of a shard proves, and what it does not."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from shardrt.host.black_box import Found, Orchestrator, Suspect
from shardrt.supervisor.evidence import Watch, is_proof

TURN = Found(Suspect("a"), orchestrator=Orchestrator("spin"))
BESIDE = Found(Suspect("a"), in_threads=(Suspect("b", "x", 1),))
ALONE = Found(Suspect("a"), alone=(Suspect("b", "x", 1),))


def watched(*cpu_s: float | None, heard_s: float = 0.0) -> Watch:
    """Return what is known after looking each quarter of a second, the last times at silence."""
    watch = Watch()
    for number, used_s in enumerate(cpu_s):
        watch.look(heard_s + number / 4, heard_s, partial(next, iter([used_s])))
    return watch


def test_a_loop_that_computes_and_is_silent_has_spun() -> None:
    assert watched(*(n / 4 for n in range(12))).has_spun


@pytest.mark.parametrize(
    "cpu_s",
    [
        [n / 4 for n in range(5)],  # busy, and not silent for long enough
        [7.0] * 12,  # stopped
        [7.0 + n * 0.003 for n in range(12)],  # waits for the lock of the interpreter
        [None] * 12,  # unknown
        [],
    ],
)
def test_a_loop_that_only_stands_still_has_not(cpu_s: list[float | None]) -> None:
    assert not watched(*cpu_s).has_spun


def test_a_beat_ends_the_suspicion() -> None:
    watch = watched(*(n / 4 for n in range(12)))
    watch.look(3.0, 2.9, lambda: 3.0)
    assert not watch.has_spun
    watch.look(4.0, 2.9, lambda: 4.0)
    assert not watch.has_spun
    watch.look(5.0, 2.9, lambda: 5.0)
    assert watch.has_spun


@pytest.mark.parametrize(
    ("found", "code", "has_spun", "proven"),
    [
        (TURN, -signal.SIGKILL, False, False),  # somebody killed it, or memory was short
        (TURN, -signal.SIGTERM, False, False),
        (TURN, -signal.SIGKILL, True, True),  # the watchdog
        (TURN, -signal.SIGSEGV, False, True),
        (TURN, 9, False, True),
        (TURN, 0, False, False),
        (BESIDE, -signal.SIGSEGV, False, False),  # which of the two?
        (ALONE, 9, False, False),
        (BESIDE, -signal.SIGKILL, True, True),
        (Found(), -signal.SIGKILL, True, False),
        (Found(), 9, False, False),
    ],
)
def test_proof(found: Found, code: int, has_spun: bool, proven: bool) -> None:
    assert is_proof(found, code, has_spun=has_spun) is proven
