"""`shardrt sim`: one seed or many, what it prints, and how it exits."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from shardrt.cli import main
from shardrt.testing.sim import sweep
from shardrt.testing.sim.ledger import Violation
from shardrt.testing.sim.run import Report


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["sim", *args])


def test_one_seed_tells_what_happened():
    result = run("--seed", "3", "--trace")
    assert result.exit_code == 0, result.output
    assert "seed 3: " in result.output
    assert "heal" in result.output
    assert "nothing is wrong" in result.output


def test_many_seeds_are_counted():
    result = run("--seeds", "3-4", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("2 seeds, 0 bad: ")


def test_each_seed_is_an_object_in_json():
    lines = run("--seeds", "3-4", "--jobs", "1", "--json").stdout.splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [3, 4]
    assert json.loads(lines[0])["violations"] == []


def test_a_broken_promise_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch):
    def broken(seed: int) -> Report:
        return Report(seed=seed, violations=[Violation("I2", "two writers", 1.0)])

    monkeypatch.setattr(sweep, "simulate", broken)
    result = run("--seeds", "7-8", "--jobs", "1")
    assert result.exit_code == 1
    assert "seed 7: " in result.output
    assert "I2 is broken at 1.000000: two writers" in result.output


@pytest.mark.parametrize("args", [(), ("--seed", "1", "--seeds", "1-2"), ("--seeds", "9-1")])
def test_wrong_usage(args: tuple[str, ...]):
    assert run(*args).exit_code == 2
