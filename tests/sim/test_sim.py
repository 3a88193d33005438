"""The simulated cluster: nothing that can go wrong breaks a promise, and runs can be repeated."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shardrt.testing.sim.run import Report, simulate
from shardrt.testing.sim.sweep import sweep

MANY = 500


def told(report: Report) -> str:
    """Return what somebody wants to read who has to find out why."""
    lines = [f"seed {report.seed}: {report.plan}"]
    lines += [f"{each.invariant} at {each.at_s:.3f} s: {each.text}" for each in report.violations]
    return "\n".join(lines)


@pytest.mark.runs(20)
def test_a_storm_breaks_no_promise(seed: int):
    report = simulate(seed)
    assert report.is_good, told(report)
    assert report.facts["records"] > 0


@pytest.mark.sim
@pytest.mark.timeout(1800)
def test_many_storms_break_no_promise(request: pytest.FixtureRequest):
    count = request.config.getoption("--runs") or MANY
    first = request.config.getoption("--seed") or 0
    facts: dict[str, int] = {}
    bad = []
    for report in sweep(range(first, first + count), jobs=os.cpu_count() or 1):
        facts = {name: facts.get(name, 0) + value for name, value in report.facts.items()}
        if not report.is_good:
            bad.append(told(report))
    assert not bad, "\n\n".join(bad)
    assert min(facts.values()) > 0, facts
    assert facts["fenced"] > 0, "no old owner ever tried to write"


def test_the_same_seed_gives_the_same_run_whatever_the_hashes():
    seeds = (3, 40)
    code = (
        "from shardrt.testing.sim.run import simulate\n"
        f"print(*(simulate(seed).fingerprint for seed in {seeds}))"
    )
    prints = set()
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        prints.add(done.stdout.strip())
    prints.add(" ".join(simulate(seed).fingerprint for seed in seeds))
    assert len(prints) == 1
    assert len(prints.pop().split()) == len(seeds)
