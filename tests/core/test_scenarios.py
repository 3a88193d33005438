"""The scenarios in `scenarios/*.txt` happen as they are told; see `scenario` for the language.

``pytest --rewrite`` writes down what happens now, and fails once so that somebody looks at it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.scenario import play

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_happens_as_told(path: Path, rewrite: bool):
    told = path.read_text(encoding="utf-8")
    happened = play(told)
    if rewrite and happened != told:
        path.write_text(happened, encoding="utf-8")
    assert happened == told


def test_there_are_scenarios():
    assert len(SCENARIOS) >= 12
