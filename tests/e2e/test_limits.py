"""A limit that all shards of a host share, while shards are killed in the middle of it."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import UNSAFE
from tests.serving import Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.proc, pytest.mark.slow]

VISITORS = 40


@pytest.fixture
def host(store_url: str, tmp_path: Path) -> Iterator[Served]:
    served = Served(
        store_url, tmp_path, "--shards", "2", app="tests.e2e.limit_app:app", variables=UNSAFE
    )
    try:
        yield served.start()
    finally:
        served.close()


def most_at_a_time(lines: list[str]) -> int:
    """Return how many at most had begun and not ended.

    One that begins again, because its shard was killed, still has the slot that it had.
    """
    inside: set[str] = set()
    most = 0
    for line in lines:
        what, name = line.split()
        inside = inside | {name} if what == "begin" else inside - {name}
        most = max(most, len(inside))
    return most


def test_no_more_than_allowed_are_at_work_and_all_get_their_turn_though_shards_die(
    host: Served, tmp_path: Path
) -> None:
    def notes() -> list[str]:
        path = tmp_path / "notes"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def are_noted(count: int) -> bool:
        return len(notes()) >= count

    assert host.cli("start", "crowd", "--id", "c", "--input", str(VISITORS)).returncode == 0
    for count in (8, VISITORS):
        wait_until(partial(are_noted, count), within_s=30)
        os.kill(host.children("shard")[0], signal.SIGKILL)
    assert host.ask("wait", "c")["output"] == VISITORS
    lines = notes()
    assert {line for line in lines if line.startswith("end")} == {
        f"end v{n}" for n in range(VISITORS)
    }
    assert most_at_a_time(lines) == 3
