"""What a run costs: CPU and memory by role of process.

Processes come and go during a run (connections, restarted shards), so the meter is read
often: what a process has used by the last reading counts.
"""

import os
from collections.abc import Callable, Mapping

from shardrt.bench import processes
from shardrt.bench.processes import Process

Roles = Mapping[int, str]
"""Process id → role, such as "shard"."""
CHILD_MODULES = {"shardrt.host.process": "shard", "shardrt.http.process": "gateway"}
"""What a supervisor's children run, and the role that this is."""
FindRoles = Callable[[dict[int, Process]], dict[int, str]]


class CpuMeter:
    """Adds up CPU time by role, from `start` to the last `read`."""

    def __init__(self, find_roles: list[FindRoles]) -> None:
        self._find_roles = find_roles
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._roles: dict[int, str] = {}

    def start(self) -> None:
        self._first.clear()
        self._last.clear()
        self._roles.clear()
        self.read()
        self._first = dict(self._last)

    def read(self) -> None:
        seen = processes.snapshot()
        for find in self._find_roles:
            self._roles |= find(seen)
        for pid in self._roles:
            if pid in seen:
                self._last[pid] = seen[pid].cpu_us

    def cpu_us(self) -> dict[str, int]:
        """Return the CPU time used since `start`, by role."""
        used: dict[str, int] = {}
        for pid, role in self._roles.items():
            spent = self._last.get(pid, 0) - self._first.get(pid, 0)
            used[role] = used.get(role, 0) + spent
        return used

    def memory(self) -> dict[str, int]:
        """Return bytes in use now, by role."""
        self.read()
        used: dict[str, int] = {}
        for pid, role in self._roles.items():
            used[role] = used.get(role, 0) + processes.memory_bytes(pid)
        return used


def this_process(role: str) -> FindRoles:
    return lambda _: {os.getpid(): role}


def host_processes(supervisor: Callable[[], int]) -> FindRoles:
    """Find the processes of a host by its supervisor and what its children are called."""

    def find(seen: dict[int, Process]) -> dict[int, str]:
        root = supervisor()
        return {
            process.pid: "supervisor" if process.pid == root else child_role(process)
            for process in processes.descendants(seen, root)
        }

    return find


def child_role(process: Process) -> str:
    for module, role in CHILD_MODULES.items():
        if f" {module} " in process.command:
            return role
    return "other"
