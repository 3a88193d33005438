"""Each feature of the programming model, on each store, with and without a crash in the middle.

A test is named ``feature-store-mode``. All features of a store and mode are played at the same
time on one host, at the first of their tests; the others look up how it went.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.matrix.runs import GROUPS, MODES, Run
from tests.matrix.stage import SCENARIOS, Scenario
from tests.postgres import fresh_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Outcome = Callable[[Scenario, str, str], BaseException | None]

pytestmark = [pytest.mark.proc, pytest.mark.slow, pytest.mark.timeout(150)]


def cells() -> Iterator[object]:
    for store, modes in MODES.items():
        for mode, scenario in itertools.product(modes, SCENARIOS):
            if store not in scenario.stores:
                continue
            if (store, mode) == ("memory", "host killed") and not scenario.virtual:
                continue
            marks = [pytest.mark.pg] if store == "postgres" else []
            name = f"{scenario.name}-{store}-{mode.replace(' ', '_')}"
            yield pytest.param(scenario, store, mode, id=name, marks=marks)


@pytest.fixture(scope="session")
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """How a scenario ended; all of its store and mode are played when one is asked for."""
    played: dict[tuple[str, str], dict[str, BaseException | None]] = {}

    def play(store: str, mode: str) -> dict[str, BaseException | None]:
        directory = tmp_path_factory.mktemp(f"{store}-{mode.replace(' ', '-')}")
        with ExitStack() as hubs:
            if store == "postgres":
                dsn = request.getfixturevalue("pg_dsn")
                urls = {name: hubs.enter_context(fresh_schema(dsn)) for name in GROUPS}
            elif store == "sqlite":
                urls = {name: f"sqlite:///{directory}/{name}.db" for name in GROUPS}
            else:
                urls = dict.fromkeys(GROUPS, "memory://")
            try:
                return Run(store, mode, directory, urls).outcomes(SCENARIOS)
            except Exception as error:  # noqa: BLE001 - of the host: nothing works
                return {each.name: error for each in SCENARIOS}

    def outcome_of(scenario: Scenario, store: str, mode: str) -> BaseException | None:
        if (store, mode) not in played:
            played[store, mode] = play(store, mode)
        return played[store, mode][scenario.name]

    return outcome_of


@pytest.mark.parametrize(("scenario", "store", "mode"), list(cells()))
def test_feature(scenario: Scenario, store: str, mode: str, outcome: Outcome) -> None:
    error = outcome(scenario, store, mode)
    if error is not None:
        raise error
