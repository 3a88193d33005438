"""The static check finds what it promises, and is quiet otherwise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from shardrt.cli import main
from shardrt.orchestration.app import App
from shardrt.orchestration.check import check_app
from shardrt.samples import app as samples
from tests.orchestration import suspects

if TYPE_CHECKING:
    from shardrt.orchestration.context import OrchestrationContext

SOURCE = Path(suspects.__file__)


def expected() -> list[tuple[int, str]]:
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    marks = ((number, re.search(r"# found: (.*)", line)) for number, line in enumerate(lines, 1))
    return [(number, mark[1]) for number, mark in marks if mark and not mark[1].startswith("…")]


def test_exactly_what_is_marked_is_found():
    found = [(each.line, each.what) for each in check_app(suspects.app)]
    assert [line for line, _ in found] == [line for line, _ in expected()]
    for (line, what), (_, text) in zip(found, expected(), strict=True):
        assert what.startswith(text), line


def test_a_finding_says_where_and_for_whom():
    finding = next(each for each in check_app(suspects.app) if each.what == "os.getenv")
    assert (finding.file, finding.function) == (str(SOURCE), "outside")
    assert finding.orchestrator == "'outside' version '2'"
    assert finding.instead == "the input, or an activity"
    assert finding.column == 5


def test_there_is_no_false_alarm_on_the_samples():
    assert check_app(samples) == []


def test_code_without_source_is_told():
    scope: dict[str, object] = {"__name__": "nowhere"}
    exec("async def flow(ctx): return 1", scope)
    app = App()
    app.orchestrator(scope["flow"])  # type: ignore[call-overload]
    (finding,) = check_app(app)
    assert finding.what == "the source of this function cannot be found"


def test_the_command_shows_a_table_and_ends_with_1():
    result = CliRunner().invoke(
        main, ["check", "tests.orchestration.suspects:app"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 1
    assert "WHERE" in result.output
    assert re.search(
        r"suspects\.py:\d+ +'clocks' +time\.sleep +await asyncio\.sleep", result.output
    )


def test_the_command_speaks_json():
    result = CliRunner().invoke(main, ["check", "tests.orchestration.suspects:app", "--json"])
    assert result.exit_code == 1
    answer = json.loads(result.output)
    assert len(answer) == len(expected())
    assert set(answer[0]) == {
        "file", "line", "column", "function", "orchestrator", "what", "instead",
    }  # fmt: skip


def test_the_command_ends_with_0_where_nothing_is_found():
    result = CliRunner().invoke(main, ["check", "shardrt.samples:app"])
    assert (result.exit_code, "nothing found" in result.output) == (0, True)
    assert (
        json.loads(CliRunner().invoke(main, ["check", "shardrt.samples:app", "--json"]).output)
        == []
    )


@pytest.mark.parametrize("reference", ["nowhere:app", "tests.orchestration.suspects:nothing"])
def test_the_command_ends_with_2_if_there_is_no_such_app(reference: str):
    result = CliRunner().invoke(main, ["check", reference])
    assert result.exit_code == 2
    assert result.output.startswith("shardrt: ")


def test_a_registered_orchestrator_as_helper_is_read_too():
    app = App()

    @app.orchestrator
    async def inner(ctx: OrchestrationContext) -> None:
        await suspects.clocks(ctx)

    assert check_app(app) == []  # of another module: not read
