"""What a host prepares before its children start."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from shardrt.supervisor.prepare import SOCKETS, sweep_sockets

if TYPE_CHECKING:
    from pathlib import Path


def test_socket_directories_of_killed_supervisors_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    left = tmp_path / f"{SOCKETS}{ended.pid}-abc"
    mine = tmp_path / f"{SOCKETS}{os.getpid()}-abc"
    other = tmp_path / "shardrt-postgres-abc"
    for path in (left, mine, other):
        path.mkdir()
    (left / "shard-0").touch()
    sweep_sockets(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, other])
