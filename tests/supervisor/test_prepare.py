"""What a host prepares before its children start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shardrt.config import Settings
from shardrt.store.base import FORMAT, Hub
from shardrt.supervisor.prepare import SOCKETS, configurations, sweep_sockets


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


def test_all_children_are_told_of_which_hub_they_are() -> None:
    hub = Hub(partitions=7, format=FORMAT, identity="1/1", id="hub")
    told = configurations(
        Settings(), host_id="a", hub=hub, sockets=Path("/s"), listen_fd=3, import_paths=[]
    )
    assert {each.role for each in told} == {"shard", "gateway"}
    assert {(each.partitions, each.hub_id) for each in told} == {(7, "hub")}
