"""The life of instances through the command line of a real host, with its death in between."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import UNSAFE
from tests.serving import Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.proc, pytest.mark.slow]


@pytest.fixture
def life(store_url: str, tmp_path: Path) -> Iterator[Served]:
    served = Served(
        store_url, tmp_path, "--shards", "2", app="tests.e2e.life_app:app", variables=UNSAFE
    )
    try:
        served.start()
        yield served
    finally:
        served.close()


def cli(host: Served, *arguments: str) -> str:
    done = host.cli(*arguments)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_a_failed_family_is_rewound_after_the_death_of_its_host(
    life: Served, tmp_path: Path
) -> None:
    cli(life, "start", "whole", "--id", "w", "--input", '"missing"')
    wait_until(lambda: life.ask("get", "w")["runtimeStatus"] == "Failed")
    os.kill(life.pid, signal.SIGKILL)
    wait_until(lambda: not life.running)
    life.start()
    (tmp_path / "missing").write_text("found", encoding="utf-8")
    cli(life, "rewind", "w")
    assert life.ask("wait", "w")["output"] == "found"
    notes = (tmp_path / "notes").read_text(encoding="utf-8").splitlines()
    assert notes == ["whole of missing", "part of missing"]


def test_schedules_explanations_and_purges(life: Served) -> None:
    cli(life, "start", "approval", "--id", "a", "--tag", "team=red")
    wait_until(lambda: life.ask("why", "a")["awaited"][0].get("name") == "approval")
    assert "event 'approval'" in cli(life, "why", "a")

    cli(life, "schedule", "add", "s", "part", "--every", "1s", "--input", '"missing"')
    wait_until(
        lambda: [each for each in life.ask("schedule", "list") if each["started"] >= 2],
        within_s=20,
    )
    cli(life, "schedule", "pause", "s")
    cli(life, "schedule", "trigger", "s")
    cli(life, "schedule", "resume", "s")
    assert "part" in cli(life, "schedule", "list")
    cli(life, "schedule", "delete", "s")

    cli(life, "terminate", "a")
    wait_until(lambda: len(life.ask("list", "--tag", "team=red", "--status", "terminated")) == 1)
    assert life.ask("purge", "--tag", "team=red", "--status", "terminated") == {
        "instancesDeleted": 1
    }
    assert life.ask("purge", "--status", "failed", "--older-than", "7d") == {"instancesDeleted": 0}
