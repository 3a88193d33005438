"""``shardrt init``: what it writes works as it is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from shardrt.cli import main
from shardrt.cli.init import FILES, NEXT
from shardrt.config import load
from tests.serving import Served, cli, environment

if TYPE_CHECKING:
    from pathlib import Path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def test_a_project_is_written_and_what_to_do_next_is_said(tmp_path: Path) -> None:
    done = init(str(tmp_path / "a" / "b"))
    assert done.exit_code == 0
    assert done.stdout.endswith(f"\ncd {tmp_path}/a/b\n{NEXT}\n")
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == set(FILES)
    settings = load(tmp_path / "a/b/shardrt.toml")
    assert (settings.host.app, settings.store.url.partition(":")[0]) == ("app:app", "sqlite")


def test_by_default_it_is_written_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = init()
    assert (done.exit_code, "cd " in done.stdout) == (0, False)
    assert (tmp_path / "app.py").exists()


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    done = init(str(tmp_path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"nothing is written: {name} in" in done.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_where_nothing_can_be_written_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = init(str(tmp_path / "file" / "project"))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


def test_the_tests_of_the_project_pass_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    init(str(tmp_path))
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_app.py"],
        check=False,
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
    )
    assert (tested.returncode, "1 passed" in tested.stdout) == (0, True), tested.stdout
    checked = cli("config", "check", "--strict", str(tmp_path / "shardrt.toml"))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.proc
@pytest.mark.slow
def test_what_is_said_to_do_next_works(tmp_path: Path) -> None:
    init(str(tmp_path))
    serve, start, _ = (shlex.split(line, comments=True) for line in NEXT.splitlines())
    assert serve[:2] == ["shardrt", "serve"]
    store = f"sqlite:///{tmp_path}/hub.db"
    with Served(store, tmp_path, *serve[2:], "--shards", "1", app="app:app") as host:
        done = host.cli(*start[1:])
        assert (done.returncode, done.stdout) == (0, '"Hello Ada!"\n'), done.stderr
