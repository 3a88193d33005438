"""``shardrt config``: check, show, schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from shardrt.cli import main
from shardrt.config.schema import schema

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "do-not-tell"


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments], env=environ)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.toml"
    path.write_text("[host]\nshrads = 3\nport = 70000\n")
    return path


def test_what_is_good_is_said_to_be():
    done = run("check")
    assert (done.exit_code, done.stdout) == (0, "defaults and environment: good\n")


def test_all_problems_of_all_files_are_told(broken: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text("[host]\nport = 1\n")
    done = run("check", str(broken), str(good))
    assert done.exit_code == 1
    first, second, last = done.stdout.splitlines()
    assert first.startswith(f"{broken}: error: host.shrads: unknown setting; did you mean")
    assert second.startswith(f"{broken}: error: host.port:")
    assert last == f"{good}: good"


def test_the_environment_counts():
    done = run("check", SHARDRT_PORT="many")
    assert done.exit_code == 1
    assert "SHARDRT_PORT" in done.stdout


def test_warnings_fail_only_if_asked_to():
    environ = {"SHARDRT_STORE": "memory://"}
    done = run("check", **environ)
    assert done.exit_code == 0
    assert "warning: store.url" in done.stdout
    assert "good, with warnings" in done.stdout
    assert run("check", "--strict", **environ).exit_code == 1


def test_a_token_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    done = run("check", SHARDRT_TOKEN_FILE=str(tmp_path / "none"))
    assert done.exit_code == 1
    assert "host.token_file" in done.stdout


def test_checks_for_scripts(broken: Path) -> None:
    done = run("check", "--json", str(broken))
    (report,) = json.loads(done.stdout)
    assert (report["file"], len(report["errors"]), report["warnings"]) == (str(broken), 2, [])


def test_values_are_shown_with_their_sources_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text("[host]\nport = 1\n")
    environ = {
        "SHARDRT_CONFIG": str(path),
        "SHARDRT_HOST_TOKEN": SECRET,
        "SHARDRT_STORE": f"postgresql://me:{SECRET}@db/hub?schema=x",
    }
    rows: dict[str, Any] = {
        row["key"]: (row["value"], row["from"])
        for row in json.loads(run("show", "--json", **environ).stdout)
    }
    assert rows["host.port"] == (1, str(path))
    assert rows["host.token"] == ("***", "SHARDRT_HOST_TOKEN")
    assert rows["store.url"] == ("postgresql://me:***@db/hub?schema=x", "SHARDRT_STORE")
    assert rows["hub.partitions"] == (32, "default")
    for arguments in (("show",), ("show", "--changed"), ("show", "--json")):
        shown = run(*arguments, **environ)
        assert shown.exit_code == 0
        assert SECRET not in shown.output
    changed = run("show", "--changed", **environ).stdout
    assert "host.port" in changed
    assert "hub.partitions" not in changed


def test_what_cannot_be_shown_is_one_line(broken: Path) -> None:
    done = run("show", "--config", str(broken))
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1


def test_the_schema_is_printed():
    assert json.loads(run("schema").stdout) == schema()
