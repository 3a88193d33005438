"""Probes of a real host whose database goes, and one of whose shards is frozen."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardrt.testing.postgres import PostgresServer
from tests.e2e.conftest import UNSAFE
from tests.serving import Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.proc, pytest.mark.slow, pytest.mark.pg]

OPTIONS = ("--shards", "2", "--partitions", "4")
SETTINGS = UNSAFE | {"SHARDRT_HOST_LEASE_TTL_S": "3"}


def silence(exposition: str, child: str) -> float:
    """Return since when a child has been silent, as a scrape tells."""
    (line,) = (
        each
        for each in exposition.splitlines()
        if each.startswith("shardrt_child_silent_seconds{") and f'"{child}"' in each
    )
    return float(line.rpartition(" ")[2])


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
def served(database: PostgresServer, tmp_path: Path) -> Iterator[Served]:
    with Served(database.dsn, tmp_path, *OPTIONS, variables=SETTINGS) as host:
        yield host


def test_what_is_wrong_is_seen_by_probes_and_passes(
    database: PostgresServer, served: Served
) -> None:
    with httpx.Client(base_url=served.url, timeout=10) as http:

        def look(path: str = "/health") -> tuple[int, str]:
            answer = http.get(path)
            return answer.status_code, answer.json()["status"]

        def troubles() -> dict[str, Any]:
            checks = http.get("/health/details").json()["checks"]
            return {each["name"]: each["message"] for each in checks if each["status"] != good}

        # The tests' server runs without fsync, which is worth a warning.
        good = "Healthy"
        wait_until(lambda: look() == (200, "Degraded"))
        assert look("/health/ready") == (200, "ready")
        assert list(troubles()) == ["configuration"]

        database.stop()
        wait_until(lambda: look() == (503, "Unhealthy"), within_s=30)
        assert look("/health/ready") == (503, "not ready")
        assert look("/health/live") == (200, "live")
        assert "store" in troubles()
        assert database.dsn.split(":")[2].partition("@")[0] not in http.get("/health/details").text
        database.start()
        wait_until(lambda: look("/health/ready") == (200, "ready"), within_s=30)
        assert list(troubles()) == ["configuration"]

        victim = served.children("shard")[0]
        os.kill(victim, signal.SIGSTOP)
        try:
            wait_until(lambda: "has been silent" in troubles().get("processes", ""), within_s=30)
            wait_until(lambda: look() == (503, "Unhealthy"), within_s=30)
            # The report that says so has been made: the other shard answers, and is led to.
            assert look("/health/ready") == (200, "ready")
            (frozen,) = (
                each
                for each in http.get("/health/details").json()["processes"]
                if each["status"] == "Unhealthy"
            )
            assert frozen["pid"] == victim
            assert f"{frozen['name']} has been silent" in troubles()["processes"]
            assert silence(http.get("/metrics").text, frozen["name"]) >= 5.0
        finally:
            os.kill(victim, signal.SIGCONT)
        wait_until(lambda: look("/health/ready") == (200, "ready"), within_s=60)
        wait_until(lambda: look() == (200, "Degraded"), within_s=60)
        wait_until(lambda: list(troubles()) == ["configuration"], within_s=30)
