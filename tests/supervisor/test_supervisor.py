"""A supervisor with real processes that only pretend to host anything."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.store.base import ERA
from tests.supervisor.hosts import ServedHost, fake_host, is_alive
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.proc,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServedHost]]:
    """Start hosts with fake children on one store; none of them outlives the test."""
    hosts: list[ServedHost] = []

    def starter(settings: dict[str, Any] | None = None, **env: str) -> ServedHost:
        directory = tmp_path / str(len(hosts))
        directory.mkdir()
        url = {"store.url": f"sqlite:////{tmp_path}/hub.db"}
        hosts.append(fake_host(directory, url | (settings or {}), **env))
        return hosts[-1]

    yield starter
    for host in hosts:
        host.end()


def owners(tmp_path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        rows = connection.execute("SELECT partition, owner, epoch FROM partitions").fetchall()
    connection.close()
    return sorted(rows)


def assigned(host: ServedHost) -> dict[str, list[int]]:
    """Return the partitions by the process that was told to host them last."""
    last = {words[3]: words[0] for words in host.told if words[2] == "assign"}
    shards: dict[str, list[int]] = {}
    for partition, shard in sorted(last.items()):
        shards.setdefault(shard, []).append(int(partition))
    return shards


def pid_of(host: ServedHost, name: str) -> int:
    return next(int(pid) for known, pid, *_ in reversed(host.told) if known == name)


def test_one_line_tells_that_everything_serves(start, tmp_path) -> None:
    host = start()
    line = host.wait_announced()
    assert re.fullmatch(
        r"shardrt serving http://127\.0\.0\.1:\d+ \(app shardrt\.samples:app, 2 shards, "
        r"4 partitions, store sqlite://.*hub\.db\)",
        line,
    )
    assert assigned(host) == {"shard-0": [0, 2], "shard-1": [1, 3]}
    assert len(host.children()) == 3
    wait_until(lambda: ["gateway-0", "routes", "4/4", "0"] in [[n, *r] for n, _, *r in host.told])
    host.signal(signal.SIGTERM)
    assert host.wait() == 0, host.errors
    assert host.announced == [line]
    assert [(p, o) for p, o, _ in owners(tmp_path)] == [(p, None) for p in range(4)]


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such policy")
def test_shards_and_gateways_interrupt_no_others(start) -> None:
    host = start()
    host.wait_announced()
    policies = [os.sched_getscheduler(pid) for pid in host.children()]
    assert policies == [os.SCHED_BATCH] * 3


def test_gateways_are_told_in_which_era_the_hub_is(start, tmp_path) -> None:
    host = start()
    host.wait_announced()
    with sqlite3.connect(tmp_path / "hub.db") as connection:  # as when a server was replaced
        connection.execute("UPDATE partitions SET epoch = epoch + ?", (2 * ERA,))
    connection.close()
    wait_until(lambda: ["gateway-0", "routes", "4/4", "2"] in [[n, *r] for n, _, *r in host.told])


def test_ctrl_c_in_a_terminal_reaches_everybody_and_still_drains(start, tmp_path) -> None:
    host = start()
    host.wait_announced()
    for pid in [host.pid, *host.children()]:
        os.kill(pid, signal.SIGINT)
    assert host.wait() == 0, host.errors
    assert sum(words[2] == "stop" for words in host.told) == 3
    assert "Traceback" not in host.errors


def test_a_second_signal_does_not_wait_for_the_drain(start, tmp_path) -> None:
    host = start({"host.drain_s": 60.0}, FAKE_SHARD="deaf")
    host.wait_announced()
    host.signal(signal.SIGTERM)
    wait_until(lambda: "draining" in host.errors)
    host.signal(signal.SIGTERM)
    assert host.wait() == 1
    assert [o for _, o, _ in owners(tmp_path)] == [None] * 4


def test_a_killed_shard_is_replaced_and_its_partitions_get_new_epochs(start, tmp_path) -> None:
    host = start()
    host.wait_announced()
    victim = pid_of(host, "shard-1")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: ["assign", "3", "2"] in [words[2:] for words in host.told])
    assert pid_of(host, "shard-1") != victim
    assert assigned(host) == {"shard-0": [0, 2], "shard-1": [1, 3]}
    assert [epoch for *_, epoch in owners(tmp_path)] == [1, 2, 1, 2]
    assert "shard-1" in host.errors
    assert "signal 9" in host.errors
    host.signal()
    assert host.wait() == 0


def test_a_shard_that_dies_again_and_again_leaves_its_partitions_to_others(start) -> None:
    host = start()
    host.wait_announced()
    killed: set[int] = set()

    def everything_is_with_the_other() -> bool:
        """Kill the shard whenever it is there, until it is no longer waited for."""
        pid = pid_of(host, "shard-1")
        if pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return assigned(host) == {"shard-0": [0, 1, 2, 3]}

    wait_until(everything_is_with_the_other, within_s=20)
    wait_until(lambda: list(map(len, assigned(host).values())) == [2, 2], within_s=20)


def test_a_killed_gateway_is_replaced_and_told_the_routes(start) -> None:
    host = start()
    host.wait_announced()
    wait_until(lambda: any(name == "gateway-0" for name, *_ in host.told))
    victim = pid_of(host, "gateway-0")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: pid_of(host, "gateway-0") != victim)
    wait_until(
        lambda: (
            ["gateway-0", "routes", "4/4", "0"]
            in [[name, *rest] for name, pid, *rest in host.told if int(pid) != victim]
        )
    )


def test_children_end_with_a_killed_supervisor_and_a_restart_need_not_wait(start) -> None:
    host = start()
    host.wait_announced()
    children = list(host.children())
    host.signal(signal.SIGKILL)
    host.wait()
    wait_until(lambda: not any(map(is_alive, children)))
    again = start({"host.lease_ttl_s": 600.0})
    again.wait_announced(within_s=10)
    assert {words[4] for words in again.told if words[2] == "assign"} == {"2"}


def test_a_blocked_shard_is_named_killed_and_replaced(start) -> None:
    host = start(
        {"shard.watchdog_s": 1.0, "host.shards": 1, "hub.partitions": 1}, FAKE_SHARD="blocked"
    )
    host.wait_announced()
    wait_until(lambda: ["assign", "0", "2"] in [words[2:] for words in host.told])
    assert "blocked" in host.errors
    assert "fake_child.py" in host.errors  # its stack
    host.signal()
    assert host.wait() == 0


def test_an_app_that_cannot_be_imported_ends_the_host_with_its_line(start, tmp_path) -> None:
    host = start(FAKE_SHARD="fatal")
    assert host.wait() == 1  # the command line makes it 2
    assert host.errors.rstrip().endswith("ConfigInvalid: host.app: no module 'nowhere'")
    assert owners(tmp_path) == [(p, None, 0) for p in range(4)]  # nothing was claimed


def test_a_child_that_never_comes_up_ends_the_host(start) -> None:
    host = start(FAKE_GATEWAY="stillborn")
    assert host.wait() == 1
    assert "gateway-0 ended 4 times while starting (exit code 7)" in host.errors


def test_a_port_in_use_is_told_before_anything_starts(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        host = start({"host.port": port})
        assert host.wait() == 1
    assert f"PortInUse: host.port: 127.0.0.1:{port} is in use" in host.errors.splitlines()[-1]


def test_a_hub_with_another_partition_count_is_refused(start) -> None:
    first = start()
    first.wait_announced()
    second = start({"hub.partitions": 8})
    assert second.wait() == 1
    assert "HubMismatch" in second.errors.splitlines()[-1]


def test_two_hosts_share_the_partitions_and_one_takes_over_from_the_other(start) -> None:
    settings = {"host.lease_ttl_s": 1.0}
    first = start(settings)
    first.wait_announced()
    second = start(settings)
    second.wait_announced()
    wait_until(lambda: sum(map(len, assigned(second).values())) == 2, within_s=20)
    first.signal(signal.SIGKILL)
    wait_until(lambda: sum(map(len, assigned(second).values())) == 4, within_s=20)


def test_no_directory_is_left_behind(start) -> None:
    # pytest's own directory would be too long for a socket.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        host = start(TMPDIR=temporary)
        host.wait_announced()
        (directory,) = os.scandir(temporary)
        assert directory.stat().st_mode & 0o777 == 0o700
        host.signal()
        assert host.wait() == 0
        assert os.listdir(temporary) == []
