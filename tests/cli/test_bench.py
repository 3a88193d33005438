"""`shardrt bench`: tables for people, JSON for scripts, one line when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from shardrt import App
from shardrt.bench import bench as accounting, hosts
from shardrt.bench.catalog import WORKLOADS
from shardrt.bench.workloads import hello
from shardrt.cli import main
from shardrt.testing.postgres import PostgresServer
from shardrt.testing.postgres_binaries import PostgresUnavailable

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ["--n", "10", "--embedded", "--store", "memory://", "--partitions", "4"]


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "WRITE_BEHIND_S", 0.0)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def test_a_table_for_people() -> None:
    done = run("hello", *SMALL)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("hello n=10 concurrency=500 mode=embedded")
    assert "instances_per_s" in done.stdout


def test_json_for_scripts() -> None:
    done = run("sequence", *SMALL, "--steps", "3", "--concurrency", "2", "--json")
    report = json.loads(done.stdout)
    assert (report["workload"], report["n"]) == ("sequence", 10)
    assert report["settings"] == {
        "mode": "embedded",
        "warmup": 1,
        "steps": 3,
        "concurrency": 2,
        "shards": 1,
        "partitions": 4,
        "store": "memory",
    }
    assert {"machine", "versions", "figures", "series"} <= set(report)


def test_runs_are_added_to_a_file_compared_and_drawn(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert run("hello", *SMALL, "--runs", "2", "--out", str(file)).exit_code == 0
    assert len(file.read_text().splitlines()) == 2
    compared = run("compare", str(file), str(file))
    assert "overlap" in compared.stdout
    drawn = run("report", str(file), "--out", str(tmp_path / "plots"))
    assert str(tmp_path / "plots" / "latency.png") in drawn.stdout.splitlines()


def test_a_wrong_answer_is_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hello, "EXPECTED", ["Hello?"])
    done = run("hello", *SMALL)
    assert done.exit_code == 1
    assert "instead of ['Hello?']" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_host_is_one_line_and_exit_code_1() -> None:
    done = run("hello", "--n", "1", "--url", "http://127.0.0.1:1", "--token", "x")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "cannot reach" in done.stderr


def test_a_database_that_is_not_there_is_one_line_without_its_password() -> None:
    store = "postgresql://u:hidden@127.0.0.1:1/x"
    done = run("hello", "--n", "1", "--embedded", "--store", store)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "refused" in done.stderr
    assert "hidden" not in done.stderr


def test_no_postgres_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> None:
        raise PostgresUnavailable("no server programs")

    monkeypatch.setattr(PostgresServer, "start", none)
    done = run("hello", "--n", "1", "--embedded")
    assert (done.exit_code, done.stderr) == (1, "shardrt: no server programs; or give --store\n")


@pytest.mark.parametrize("workload", ["hello", "counter"])
def test_an_app_without_the_workload_is_told_apart(
    workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "app", App())
    done = run(workload, *SMALL)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "--app shardrt.bench:app" in done.stderr


def test_serving_and_embedding_exclude_each_other() -> None:
    assert run("hello", *SMALL, "--serve").exit_code == 2


def test_every_workload_has_its_help() -> None:
    shown = run("--help").stdout
    assert all(name in shown for name in WORKLOADS)
    assert "--accounts" in run("bank", "--help").stdout


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("no")
    for arguments in (["compare", str(file), str(file)], ["report", str(file), "--out", "x"]):
        done = run(*arguments)
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['hdrh'] = None; from shardrt.cli import main; main(['bench'])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pip install 'shardrt[bench]'" in done.stderr
