"""`shardrt verify` on what a killed host has left, in real databases."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from shardrt.client import SyncClient
from tests.e2e.conftest import UNSAFE
from tests.serving import cli

if TYPE_CHECKING:
    import subprocess

    from tests.serving import Served

pytestmark = [pytest.mark.slow, pytest.mark.proc]

DAMAGE = {
    "row": "UPDATE instances SET state = substr(state, 1, 30) WHERE instance_id = 'cut'",
    "column": "UPDATE instances SET status = 'Failed' WHERE instance_id = 'wrong'",
    "history": "DELETE FROM history WHERE instance_id = 'gone'",
    "journal": "UPDATE partitions SET commit_lsn = commit_lsn + 1 WHERE partition = 3",
}


def verified(store_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return cli("verify", "--store", store_url, *options, **UNSAFE)


def execute(store_url: str, statements: list[str]) -> None:
    if store_url.startswith("sqlite"):
        database = sqlite3.connect(store_url.removeprefix("sqlite:///"))
        with database:
            for statement in statements:
                database.execute(statement)
        database.close()
        return
    dsn, _, schema = store_url.partition("?schema=")
    with psycopg.connect(dsn) as connection:
        connection.execute(f"SET search_path TO {schema}")
        for statement in statements:
            connection.execute(statement)


def test_a_killed_host_leaves_no_damage_and_damage_is_told(host: Served, store_url: str) -> None:
    host.start()
    with SyncClient.connect(host.url) as client:
        for instance_id in ("cut", "wrong", "gone"):
            client.start("hello", instance_id=instance_id).result()
        children = [client.start("fanout", 5, instance_id=f"some-{n}") for n in range(20)]
        assert len(children) == 20
        while json.loads(verified(store_url, "--json").stdout)["instances"] < 23:
            pass  # beside a host that serves, and until all are in rows
        for number in range(5):
            client.start("fanout", 5, instance_id=f"last-{number}")
    host.kill_all()
    done = verified(store_url)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("nothing is wrong: ")

    execute(store_url, list(DAMAGE.values()))
    told = verified(store_url)
    assert told.returncode == 1
    assert "purge --force" in " ".join(told.stdout.split())
    report: dict[str, Any] = json.loads(verified(store_url, "--json").stdout)
    by_kind = {each["kind"]: each for each in report["findings"]}
    assert by_kind.keys() >= DAMAGE.keys()
    assert by_kind["row"]["instanceId"] == "cut"
    assert by_kind["history"]["instanceId"] == "gone"
    assert by_kind["journal"]["partition"] == 3


def test_what_is_not_there_is_not_made(store_url: str, tmp_path: Any) -> None:
    path = tmp_path / "nothing.db"
    missing = cli("verify", "--store", f"sqlite:///{path}")
    assert missing.returncode == 2
    assert "there is no file" in missing.stderr
    assert not path.exists()
    if not store_url.startswith("sqlite"):
        assert verified(store_url).returncode != 0
