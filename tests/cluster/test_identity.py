"""Names of hosts and incarnations."""

import os
import subprocess
import sys

import pytest

from shardrt.cluster.identity import default_host_id, is_dead, new_incarnation


def test_incarnations_differ_and_the_running_process_is_not_dead() -> None:
    one, other = new_incarnation(), new_incarnation()
    assert one != other
    assert not is_dead(one)


@pytest.mark.skipif(sys.platform != "linux", reason="knows processes by /proc")
def test_a_process_of_this_machine_that_has_ended_is_dead() -> None:
    code = "from shardrt.cluster.identity import new_incarnation; print(new_incarnation())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert is_dead(done.stdout.strip())


@pytest.mark.skipif(sys.platform != "linux", reason="knows processes by /proc")
def test_another_process_with_the_pid_of_a_dead_one_does_not_revive_it() -> None:
    machine, pid, started, random = new_incarnation().split(".")
    assert is_dead(f"{machine}.{pid}.{int(started) - 1}.{random}")


@pytest.mark.parametrize("incarnation", ["", "i1", "elsewhere.1.2.3", ".1.2.3", "a.b.c.d.e"])
def test_nothing_is_said_about_processes_elsewhere(incarnation: str) -> None:
    assert not is_dead(incarnation)


def test_a_host_keeps_its_default_id_over_a_restart() -> None:
    assert default_host_id(8520) == default_host_id(8520) != default_host_id(8521)
